"""Commands for the chip archive: `caco archive …`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from caco_assets.commands.shared import profile_option, settings_of, show
from caco_assets.core.errors import UserError
from caco_assets.settings import Settings


@click.group()
def archive() -> None:
    """The archive of chips."""


@archive.command("ls")
@profile_option
@click.option("--shard", type=int, help="The chips of this shard; default the shards.")
@click.option("--refused", is_flag=True, help="The refused chips, each with its reason, instead of the archived ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def archive_ls(profile: str, shard: int | None, refused: bool, as_json: bool) -> None:
    """Shards with their chips, places and bytes, and why chips were refused."""
    from caco_assets.imagery.archive.listing import list_chips, list_refusals, list_shards, refusal_line, total

    folder = settings_of(profile, writes=False).paths.archive
    if refused:
        for row in list_refusals(folder, shard):
            click.echo(json.dumps(row) if as_json else refusal_line(row))
        return
    if shard is not None:
        for row in list_chips(folder, shard):
            date = row["datetime"].date().isoformat()
            where = f"{row['offset']}+{row['length']}"
            line = f"{row['id']}  {date}  {row['item_id']}  EPSG:{row['epsg']}  clear {row['clear_fraction']:.0%}  {where}"
            click.echo(json.dumps(row, default=str) if as_json else line)
        return
    shards = list_shards(folder)
    for one in shards:
        click.echo(json.dumps(asdict(one)) if as_json else str(one))
    if not as_json:
        click.echo(total(shards))


@archive.command("verify")
@profile_option
@click.option("--workers", type=int, help="Threads; default one per core.")
@click.option("--repair", is_flag=True, help="Forget damaged shards, so that the next `caco ingest` makes them again.")
def archive_verify(profile: str, workers: int | None, repair: bool) -> None:
    """Read every chip and compare it with its index. Exit status 1 when something is damaged."""
    from caco_assets.imagery.archive.verify import verify_archive

    settings = settings_of(profile, writes=repair)
    found = verify_archive(settings.paths.archive, _shards(settings), workers)
    for problem in found:
        click.echo(problem, err=True)
    if not found:
        click.echo("every chip is what its index says")
        return
    shards = sorted({problem.shard for problem in found if problem.shard})
    if repair:
        for shard in shards:
            (settings.paths.records / "archive" / f"{shard}.json").unlink(missing_ok=True)
        click.echo(f"forgotten: {', '.join(shards) or 'nothing'}; run `caco ingest` (or `caco archive import`) again", err=True)
    else:
        click.echo(
            f"{len(found)} things are damaged in {len(shards)} shards; --repair, then `caco ingest`, makes them again", err=True
        )
    raise click.exceptions.Exit(1)


def _shards(settings: Settings) -> int | None:
    """Expected number of shards; None before the places are drawn."""
    from caco_assets.core.products import recorded

    if not (settings.paths.records / "locations.json").exists():
        return None
    return recorded(settings.paths.records, "locations").facts["shards"]


@archive.command("export")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@profile_option
@click.option(
    "--layout",
    type=click.Choice(["tif", "published"]),
    default="tif",
    show_default=True,
    help="`tif`: the chips as they are, L0000012/p0s3.tif; `published`: as SeCo and CACo publish, 000012/<date>/B4.tif.",
)
@click.option("--uint8", is_flag=True, help="With --layout published: reflectance × 255, as the published loaders expect.")
def archive_export(target: Path, profile: str, layout: str, uint8: bool) -> None:
    """Write the chips to the folder TARGET as loose GeoTIFFs."""
    from caco_assets.imagery.seco_layout.export_archive import export_published, export_tifs

    if uint8 and layout != "published":
        raise UserError(f"--uint8 with --layout {layout}: only the published layout has uint8; add --layout published")
    folder = settings_of(profile, writes=False).paths.archive
    kind = "uint8" if uint8 else "uint16"
    facts = export_tifs(folder, target) if layout == "tif" else export_published(folder, target, kind)
    click.echo(f"{facts['chips']} chips of {facts['places']} places: {target}")


@archive.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@profile_option
def archive_import(folder: Path, profile: str) -> None:
    """Make the archive of FOLDER, a set in the layout of SeCo and CACo, unpacked (000123/<date>/B4.tif).

    The profile (such as `seco`) says the bands, the size of a chip, and what parts early dates from late ones.
    """
    from caco_assets.imagery.seco_layout.import_archive import import_published
    from caco_assets.imagery.stage import collect

    settings = settings_of(profile)
    products = import_published(settings, folder)
    for product in (*products, collect(settings, products[1:])):
        show(product)
