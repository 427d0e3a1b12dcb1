"""`caco …`: every command is one call into a room. A `UserError` is printed as one line and exits with 2."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import click

from caco_assets import __version__
from caco_assets.errors import UserError
from caco_assets.products import Product
from caco_assets.progress import to_stderr
from caco_assets.settings import Settings, load_settings


class _Group(click.Group):
    """Turns a `UserError` into one line and exit status 2; Ctrl-C into 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"caco: {error}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            click.echo("caco: the disk is full; free some space and run the same command again, it continues", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("caco: interrupted; what is finished is kept, run the same command again to go on", err=True)
            sys.exit(130)


profile_option = click.option(
    "--profile", envvar="CACO_PROFILE", default="embedded", show_default=True, help="Name of a profile, or path to a YAML file."
)


def _show(product: Product) -> None:
    state = "unchanged" if product.reused else "made"
    click.echo(f"{product.name}: {state} {product.path} ({product.content_hash})")
    for name, value in product.facts.items():
        click.echo(f"  {name}: {json.dumps(value, default=str, ensure_ascii=False)}")


def _settings(profile: str) -> Settings:
    from caco_assets.home import ensure_home

    settings = load_settings(profile)
    ensure_home(settings)
    return settings


@click.group(cls=_Group)
@click.version_option(__version__)
def main() -> None:
    """From a point on the Earth to a registered encoder."""


@main.command()
@profile_option
@click.option("--write", is_flag=True, help="Write what the DVC stages depend on into the workspace.")
def settings(profile: str, write: bool) -> None:
    """Show the settings as they are after profile and environment."""
    from caco_assets.home import write_stage_settings

    resolved = _settings(profile)
    if write:
        click.echo(write_stage_settings(resolved))
    else:
        click.echo(resolved.model_dump_json(indent=1))


@main.command()
@profile_option
def demo(profile: str) -> None:
    """Materialize the whole asset graph and print what came out."""
    from caco_assets.definitions import build_definitions
    from caco_assets.demo import summary
    from caco_assets.preflight import preflight
    from caco_assets.resources.compute import materialize

    resolved = _settings(profile)
    preflight(resolved)
    materialize(build_definitions(resolved, profile).resolve_job_def("chain"), resolved)
    click.echo(summary(resolved))


@main.command()
@profile_option
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--pages-port", default=3001, show_default=True)
def up(profile: str, dagster_port: int, mlflow_port: int, pages_port: int) -> None:
    """Dagster UI, MLflow UI and the workspace's pages on loopback; one Ctrl-C stops all. Ports in use are replaced."""
    from caco_assets.desk import serve

    serve(_settings(profile), dagster_port=dagster_port, mlflow_port=mlflow_port, pages_port=pages_port)


@main.command()
@profile_option
def sample(profile: str) -> None:
    """Sampling: draw the places."""
    from caco_assets.sampling.stage import sample as run

    _show(run(_settings(profile), to_stderr))


@main.group()
def catalog() -> None:
    """Catalogs of scenes."""


@catalog.command("make")
@profile_option
def catalog_make(profile: str) -> None:
    """The profile's own catalog: the embedded Earth, or its folder of GeoTIFFs."""
    _show(_make_catalog(_settings(profile)))


def _make_catalog(resolved: Settings) -> Product:
    from caco_assets.imagery.stage import index_folder
    from caco_assets.synthetic.stage import build_catalog

    if resolved.imagery.source.kind == "synthetic":
        return build_catalog(resolved, to_stderr)
    if resolved.imagery.source.kind == "folder":
        return index_folder(resolved, to_stderr)
    raise UserError(
        f"imagery.source.kind={resolved.imagery.source.kind}: that catalog exists already; only synthetic and folder are made"
    )


@catalog.command("build")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bands", required=True, help="Band names in file order, separated by commas: B02,B03,B04.")
@click.option("--date-pattern", default=r"(\d{4}-\d{2}-\d{2})", show_default=True, help="Regular expression; group 1 is the date.")
@click.option("--scale", default=1e-4, show_default=True, help="Reflectance per digital number.")
@click.option("--offset", default=0.0, show_default=True, help="Reflectance at digital number 0.")
@click.option("--nodata", default=0.0, show_default=True, help="Digital number that means no data.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the catalog.")
def catalog_build(folder: Path, bands: str, date_pattern: str, scale: float, offset: float, nodata: float, out: Path) -> None:
    """Index a FOLDER of GeoTIFFs, one multi-band file per date, as a static STAC catalog."""
    from pydantic import ValidationError

    from caco_assets.imagery.folder import index_folder
    from caco_assets.settings import FolderSource

    names = tuple(name.strip() for name in bands.split(",") if name.strip())
    try:
        source = FolderSource(path=folder, bands=names, date_pattern=date_pattern, scale=scale, offset=offset, nodata=nodata)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"--{'-'.join(map(str, problem['loc']))}={problem['input']!r}: {problem['msg']}") from error
    for name, value in index_folder(source, out, to_stderr).items():
        click.echo(f"{name}: {value}")


@main.command()
@profile_option
def plan(profile: str) -> None:
    """Imagery: choose the scenes (makes the profile's catalog first where that is ours to make)."""
    from caco_assets.imagery.stage import plan as run

    resolved = _settings(profile)
    if resolved.imagery.source.kind in ("synthetic", "folder"):
        _show(_make_catalog(resolved))
    _show(run(resolved, to_stderr))


@main.command()
@profile_option
@click.option("--shard", type=int, help="One shard only; default all, then the quarantine of the whole archive.")
def ingest(profile: str, shard: int | None) -> None:
    """Imagery: read the chips into the archive, shard by shard."""
    from caco_assets.imagery.stage import collect, ingest_shard
    from caco_assets.products import recorded

    resolved = _settings(profile)
    if shard is not None:
        _show(ingest_shard(resolved, shard, to_stderr))
        return
    for number in range(recorded(resolved.paths.records, "locations").facts["shards"]):
        _show(ingest_shard(resolved, number, to_stderr))
    _show(collect(resolved, to_stderr))


@main.group()
def archive() -> None:
    """The archive of chips."""


@archive.command("ls")
@profile_option
def archive_ls(profile: str) -> None:
    """Shards with their chips, places and bytes."""
    from caco_assets.imagery.archive import ls

    for line in ls(_settings(profile).paths.archive):
        click.echo(line)


@archive.command("verify")
@profile_option
def archive_verify(profile: str) -> None:
    """Read every chip and compare its checksum."""
    from caco_assets.imagery.archive import verify

    problems = verify(_settings(profile).paths.archive)
    for line in problems:
        click.echo(line, err=True)
    if problems:
        raise UserError(f"{len(problems)} chips are damaged; delete their shard folders and run `caco ingest` again")
    click.echo("every chip is what its index says")


@main.command()
@profile_option
def pack(profile: str) -> None:
    """Pretraining: build the pack that training reads."""
    from caco_assets.pretraining.stage import build_pack

    _show(build_pack(_settings(profile), to_stderr))


@main.command()
@profile_option
def pretrain(profile: str) -> None:
    """Pretraining: train the encoder."""
    from caco_assets.pretraining.stage import pretrain as run

    _show(run(_settings(profile), to_stderr))


@main.command()
@profile_option
def benchmarks(profile: str) -> None:
    """Downstream: make the labelled twins of the benchmark data sets."""
    from caco_assets.synthetic.stage import build_benchmarks

    _show(build_benchmarks(_settings(profile), to_stderr))


@main.command()
@profile_option
def score(profile: str) -> None:
    """Downstream: judge the encoder and the baselines."""
    from caco_assets.downstream.stage import score as run

    _show(run(_settings(profile), say=to_stderr))


@main.command()
@profile_option
@click.argument("product", type=click.Choice(["locations", "scenes", "archive", "pack", "scores"]))
def validate(profile: str, product: str) -> None:
    """Validation: run the expectations of a product."""
    from caco_assets.validation.stage import validate as run

    result = run(_settings(profile), product, to_stderr)
    for line in [*result.blocking_failed, *result.warnings]:
        click.echo(line, err=True)
    if result.blocking_failed:
        raise UserError(f"{product}: {len(result.blocking_failed)} blocking expectations failed; see {result.docs}")
    click.echo(f"{product}: {result.evaluated} expectations evaluated, {len(result.warnings)} warnings")


@main.command()
@profile_option
def report(profile: str) -> None:
    """Evaluation: write the report."""
    from caco_assets.evaluation.stage import report as run

    _show(run(_settings(profile), to_stderr))


@main.command()
@profile_option
def register(profile: str) -> None:
    """Registry: the encoder becomes a version, alias challenger."""
    from caco_assets.registry.stage import register as run
    from caco_assets.resources.dvc import data_versions

    resolved = _settings(profile)
    registered = run(resolved, to_stderr, data_versions=data_versions(resolved) or None)
    click.echo(f"{registered.uri} (alias {registered.alias})")


@main.command()
@profile_option
def promote(profile: str) -> None:
    """Registry: let the policy decide on the challenger."""
    from caco_assets.registry.stage import decide

    if not decide(_settings(profile), to_stderr).passed:
        raise UserError("the challenger does not pass the policy (see above); the champion stays")


@main.command()
@profile_option
def rollback(profile: str) -> None:
    """Registry: put the previous champion back in service."""
    from caco_assets.registry.stage import rollback as run

    click.echo(f"version {run(_settings(profile), to_stderr)} serves")


@main.command()
@profile_option
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--encoder", "uri", required=True, help="models:/name@champion, models:/name/3, or a folder.")
@click.option("--out", type=click.Path(path_type=Path), help="`.parquet`, `.csv` or `.npz`; default IMAGE.embeddings.parquet.")
@click.option("--tile", default=64, show_default=True, help="Side of a tile, pixels of the image.")
@click.option("--size", type=int, help="Side of the network's input; default the encoder's own.")
@click.option("--bands", help="Band names in file order, separated by commas; default the names in the file.")
@click.option("--scale", type=float, help="Reflectance per digital number; default the file's, else 0.0001.")
@click.option("--offset", type=float, help="Reflectance at digital number 0; default the file's, else 0.")
def embed(
    profile: str,
    image: Path,
    uri: str,
    out: Path | None,
    tile: int,
    size: int | None,
    bands: str | None,
    scale: float | None,
    offset: float | None,
) -> None:
    """Registry: embeddings of IMAGE, a GeoTIFF, tile by tile."""
    from caco_assets.registry.embed import embed as run
    from caco_assets.registry.packaged_encoder import load_encoder
    from caco_assets.resources.mlflow import open_tracking

    resolved = load_settings(profile)
    encoder = load_encoder(uri, open_tracking(resolved, to_stderr))
    names = bands.split(",") if bands else None
    embeddings = run(image, encoder, tile=tile, size=size, bands=names, reflectance_per_dn=scale, offset=offset)
    target = out or image.with_name(f"{image.stem}.embeddings.parquet")
    embeddings.write(target)
    click.echo(f"{len(embeddings.vectors)} tiles × {embeddings.vectors.shape[1]} features: {target}")


if __name__ == "__main__":
    main()
