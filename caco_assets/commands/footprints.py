"""The command `caco footprints`: writes the footprints of a folder's images to a file for `sampling.exclude`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="`.parquet` (GeoParquet) or `.geojson`.")
@click.option("--pattern", help="Which files below FOLDER, default **/*.tif*; one band of each patch is enough: **/*_B02.tif.")
def footprints(folder: Path, out: Path, pattern: str | None) -> None:
    """Sampling: footprints of all georeferenced GeoTIFFs below FOLDER, to keep pretraining away from them."""
    from caco_assets.sampling.footprints import PATTERN, read_footprints, write_footprints

    found = read_footprints(folder, pattern or PATTERN)
    write_footprints(found, out)
    for name, reason in found.refused.items():
        click.echo(f"{name}: {reason}", err=True)
    click.echo(f"{len(found.names)} footprints of {found.files} files, {len(found.refused)} files without one: {out}")
