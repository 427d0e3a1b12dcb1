"""Commands of the room `registry`."""

from __future__ import annotations

from pathlib import Path

import click

from caco_assets.commands.shared import profile_option, settings_of, split_names
from caco_assets.core.errors import UserError
from caco_assets.settings import load_settings


@click.command()
@profile_option
@click.option("--encoder", help="Register this one: a name of `caco encoder import`, or the folder of an encoder.")
def register(profile: str, encoder: str | None) -> None:
    """Registry: register the encoder as a version with the alias challenger."""
    from caco_assets.registry.scored_encoder import ScoredEncoder
    from caco_assets.registry.stage import register as run
    from caco_assets.registry.stage import register_imported
    from caco_assets.resources.mlflow.client import open_tracking

    resolved = settings_of(profile)
    if encoder is not None:
        registered = register_imported(resolved, encoder, open_tracking(resolved))
    else:
        registered = run(resolved, ScoredEncoder.recorded(resolved), open_tracking(resolved))
    click.echo(f"{registered.uri} (alias {registered.alias})")


@click.command()
@profile_option
@click.option("--override", is_flag=True, help="Promote despite failed rules (allowed users only); needs --reason.")
@click.option("--reason", default="", help="Why; kept with the version.")
def promote(profile: str, override: bool, reason: str) -> None:
    """Registry: apply the promotion policy to the challenger."""
    from caco_assets.registry.stage import decide
    from caco_assets.registry.stage import release as publish
    from caco_assets.resources.mlflow.client import open_tracking

    if reason and not override:
        raise UserError("--reason: needs --override; without it only the policy decides")
    resolved = settings_of(profile)
    tracking = open_tracking(resolved)
    if not decide(resolved, tracking, override=reason if override else None).passed and not override:
        raise UserError("the challenger does not pass the policy (see above); the champion stays")
    publish(resolved, tracking)


@click.command()
@profile_option
def release(profile: str) -> None:
    """Registry: exports and model card of the champion, as files of its run; once per version."""
    from caco_assets.registry.stage import release as run
    from caco_assets.resources.mlflow.client import open_tracking

    resolved = settings_of(profile)
    released = run(resolved, open_tracking(resolved))
    if released is None:
        raise UserError("there is no champion to release; `caco promote` decides on the challenger")
    click.echo(f"version {released.version}: {released.where}")


@click.command()
@profile_option
@click.option("--reason", required=True, help="Why; kept with the withdrawn version.")
@click.option("--restore", is_flag=True, help="Also to a version that a rollback has withdrawn.")
def rollback(profile: str, reason: str, restore: bool) -> None:
    """Registry: swap champion and previous."""
    from caco_assets.registry.aliases.champion import rollback as run
    from caco_assets.resources.mlflow.client import open_tracking

    resolved = settings_of(profile)
    move = run(resolved, open_tracking(resolved), reason=reason, restore=restore)
    click.echo(f"version {move.after.champion} serves")


@click.command()
@profile_option
@click.argument("uri")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
def export(profile: str, uri: str, out: Path) -> None:
    """Registry: the encoder URI (models:/name@champion, or a folder) as timm, ONNX, torch.export and a STAC item."""
    from caco_assets.registry.release.export import export_version as run

    found = run(load_settings(profile), uri, out)
    click.echo(f"{out}: {', '.join(found)}; largest difference {max(found.values()):.1g} standard deviations of the features")


@click.command()
@profile_option
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--encoder", "uri", required=True, help="models:/name@champion, models:/name/3, or a folder.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="`.parquet`, `.csv` or `.npz`; of several IMAGES a folder. Default IMAGE.embeddings.parquet beside each.",
)
@click.option("--tile", default=64, show_default=True, help="Side of a tile, pixels of the image.")
@click.option("--size", type=int, help="Side of the network's input; default the encoder's own.")
@click.option("--bands", help="Band names in file order, separated by commas; default the names in the file.")
@click.option("--scale", type=float, help="Reflectance per digital number; default the file's, else 0.0001.")
@click.option("--offset", type=float, help="Reflectance at digital number 0; default the file's, else 0.")
@click.option("--overlap", is_flag=True, help="Cover the rest at the right and lower edge too, by tiles that overlap.")
def embed(
    profile: str,
    images: tuple[Path, ...],
    uri: str,
    out: Path | None,
    tile: int,
    size: int | None,
    bands: str | None,
    scale: float | None,
    offset: float | None,
    overlap: bool,
) -> None:
    """Registry: embeddings of IMAGES, tile by tile: GeoTIFFs, or arrays (`.npy`: integers of shape bands, height, width)."""
    from caco_assets.inference.embed import embed_file
    from caco_assets.registry.package.mlflow_model import load_encoder_of

    encoder = load_encoder_of(load_settings(profile), uri)
    names = split_names(bands)
    targets = [image.with_name(f"{image.stem}.embeddings.parquet") for image in images]
    if out is not None:
        targets = [out] if len(images) == 1 else [out / target.name for target in targets]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UserError(f"images: two of them would be written to {twice}; embed them in two calls, each with its own --out")
    for image, target in zip(images, targets, strict=True):
        embeddings = embed_file(
            image, encoder, tile=tile, size=size, bands=names, reflectance_per_dn=scale, offset=offset, overlap=overlap
        )
        embeddings.write(target)
        click.echo(f"{len(embeddings.vectors)} tiles × {embeddings.vectors.shape[1]} features: {target}")
