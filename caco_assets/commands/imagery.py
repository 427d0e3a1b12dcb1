"""Commands of the room `imagery` that make its products: `caco catalog …`, `caco plan`, `caco ingest`."""

from __future__ import annotations

from pathlib import Path

import click

from caco_assets.commands.shared import profile_option, settings_of, show, split_names
from caco_assets.core.errors import UserError, explain_validation
from caco_assets.core.products import Product
from caco_assets.settings import Settings


@click.group()
def catalog() -> None:
    """Catalogs of scenes."""


@catalog.command("make")
@profile_option
def catalog_make(profile: str) -> None:
    """The profile's own catalog: the embedded Earth, or its folder of GeoTIFFs."""
    show(_make_catalog(settings_of(profile)))


def _make_catalog(resolved: Settings) -> Product:
    from caco_assets.imagery.stage import index_folder
    from caco_assets.synthetic.stage import build_catalog

    if resolved.imagery.source.kind == "synthetic":
        return build_catalog(resolved)
    if resolved.imagery.source.kind == "folder":
        return index_folder(resolved)
    raise UserError(
        f"imagery.source.kind={resolved.imagery.source.kind}: that catalog exists already; only synthetic and folder are made"
    )


@catalog.command("build")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bands", required=True, help="Band names in file order, separated by commas: B02,B03,B04.")
@click.option("--date-pattern", default=r"(\d{4}-\d{2}-\d{2})", show_default=True, help="Regular expression; group 1 is the date.")
@click.option("--scale", type=float, help="Reflectance per digital number; default the file's, else 0.0001.")
@click.option("--offset", type=float, help="Reflectance at digital number 0; default the file's, else 0.")
@click.option(
    "--nodata", default="file", help="Digital number that means no data; `none`: every number is data; default the file's, else 0."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the catalog.")
def catalog_build(
    folder: Path, bands: str, date_pattern: str, scale: float | None, offset: float | None, nodata: str, out: Path
) -> None:
    r"""Index a FOLDER of GeoTIFFs, one multi-band file per date, as a static STAC catalog.

    Any sensor, bands and resolution: --bands names what the files hold, --scale and --offset say what their numbers mean. Numbers
    that are no reflectance (8-bit pictures) are kept as they are by --scale 0.00392157 (1/255) and the stretch `reflectance`.
    """
    from pydantic import ValidationError

    from caco_assets.imagery.catalogs.folder import index_folder
    from caco_assets.settings import FolderSource

    empty = None if nodata.lower() == "none" else nodata
    try:
        source = FolderSource.model_validate(
            {
                "path": folder,
                "bands": split_names(bands) or (),
                "date_pattern": date_pattern,
                "scale": scale,
                "offset": offset,
                "nodata": empty,
            }
        )
    except ValidationError as error:
        raise UserError(f"--{explain_validation(error)}") from error
    for name, value in index_folder(source, out).items():
        click.echo(f"{name}: {value}")


@click.command()
@profile_option
def plan(profile: str) -> None:
    """Imagery: choose the scenes (makes the profile's catalog first where that is ours to make)."""
    from caco_assets.imagery.on_record import plan as run

    resolved = settings_of(profile)
    if resolved.imagery.source.kind in ("synthetic", "folder"):
        show(_make_catalog(resolved))
    show(run(resolved))


@click.command()
@profile_option
@click.option("--shard", type=int, help="One shard only; default all, then the quarantine of the whole archive.")
@click.option("--retry", is_flag=True, help="Also try again the chips of finished shards whose files could not be read.")
def ingest(profile: str, shard: int | None, retry: bool) -> None:
    """Imagery: read the chips into the archive, shard by shard.

    Scenes are chosen again first if the source or the settings have changed since; shards are read again if their files have.
    """
    from caco_assets.core.products import recorded
    from caco_assets.imagery.backfill import ingest_shards
    from caco_assets.imagery.on_record import collect, ingest_shard, plan_again_if_changed

    resolved = settings_of(profile)
    plan_again_if_changed(resolved)
    if shard is not None:
        show(ingest_shard(resolved, shard, retry=retry))
        return
    shards = range(recorded(resolved.paths.records, "locations").facts["shards"])
    for _, product in ingest_shards(resolved, shards, retry=retry):
        show(product)
    show(collect(resolved))
