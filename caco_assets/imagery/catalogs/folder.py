"""Indexes a folder of GeoTIFFs, one multi-band file per date, as a static STAC catalog."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.core.progress import track
from caco_assets.imagery.catalogs.folder_checks import check_bands, closing_notes, look, radiometry_of
from caco_assets.imagery.catalogs.static import ITEMS
from caco_assets.imagery.geometry.footprint import raster_footprint
from caco_assets.imagery.reading.file_facts import FileFacts, facts_of
from caco_assets.imagery.reading.gdal import UnreadableError, check_readable, open_raster
from caco_assets.imagery.scenes.band_names import contradiction
from caco_assets.imagery.scenes.clear_sky import clear_test
from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.settings import FolderSource
from caco_assets.settings.imagery_sources import USUAL_SCALE

if TYPE_CHECKING:
    import pystac
    from rasterio.io import DatasetReader

logger = logging.getLogger(__name__)

COLLECTION = "folder"
REFUSED = "refused.json"
SUFFIXES = (".tif", ".tiff")
FOLDER_LINK = "source"
"""Link in the catalog to the folder of the files."""
_FROM_ITEM = f"../../{FOLDER_LINK}/"
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]


def index_folder(source: FolderSource, target: Path) -> Facts:
    """Write a STAC catalog of the folder's files to `target`: `catalog.json`, one item per file, `items.parquet`, `refused.json`.

    Every file is read once in full, so that truncated files are found now and not during an ingest.

    Args:
        source: the folder, its band names in file order, the pattern of the dates, and the scale of the numbers.
        target: folder to create; assets in it point at the files through its link `source`.

    Returns:
        Facts: `items`, `refused`, `first`, `last`, `refused_files` (name → reason), `clear_test` (how clouds are
            detected: `scl`, `reflectance` or `nodata` alone), `notes` (what a user should check, a line each).

    Raises:
        UserError: no such folder, no GeoTIFF in it, a band named twice, a name without a date, two files of one name, or no
            readable file.
    """
    files = list_files(source)
    target.mkdir(parents=True, exist_ok=True)
    # one link names the folder: the catalog and everything made from it are the same wherever the folder is
    (target / FOLDER_LINK).unlink(missing_ok=True)
    (target / FOLDER_LINK).symlink_to(source.path.resolve(), target_is_directory=True)
    dated = [(path, date_of(path, source.date_pattern)) for path in files]
    check_bands(source)
    items, refused, notes = [], {}, []
    for path, moment in track(dated, "catalog", len(dated), "files"):
        try:
            items.append(_item(path, moment, source, notes))
        except UnreadableError as error:
            refused[path.name] = error.detail
            logger.info(f"catalog: {path.name} refused: {error.detail}")
    if not items:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise UserError(f"{source.path}: none of the {len(files)} GeoTIFFs can be used ({reasons})")
    _write(target, items)
    write_atomic(target / REFUSED, json.dumps(refused, indent=1, sort_keys=True) + "\n")
    dates = sorted(moment for _, moment in dated)
    facts: Facts = {"items": len(items), "refused": len(refused), "refused_files": refused}
    facts |= {"first": dates[0].date().isoformat(), "last": dates[-1].date().isoformat()}
    notes += closing_notes(source, [str(item.properties["proj:code"]) for item in items])
    for note in notes:
        logger.info(f"catalog: {note}")
    return facts | {"clear_test": clear_test(source.bands), "notes": notes}


def list_files(source: FolderSource) -> list[Path]:
    """The folder's GeoTIFFs by name.

    Raises:
        UserError: no such folder, or no GeoTIFF in it.
    """
    if not source.path.is_dir():
        raise UserError(f"imagery.source.path={source.path}: no such folder")
    files = sorted(path for path in source.path.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"imagery.source.path={source.path}: no GeoTIFF in it (names end in {' or '.join(SUFFIXES)})")
    stems = [path.stem for path in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise UserError(f"{source.path}: two files are called {twice[0]}; each needs a name of its own")
    return files


def date_of(path: Path, pattern: str) -> datetime:
    """The date in a file's name: the first group of `pattern`, as `2020-01-13` or `20200113`, noon UTC.

    A month alone (`2020-01`) means its 15th, a year alone (`1985`) the 1st of July: its middle.

    Raises:
        UserError: the pattern is not a regular expression with a group, it does not match, or its match is not a date.
    """
    try:
        # capitals mean nothing in a file's name: `1985.TIF` matches `(\d{4})\.tif`
        expression = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"imagery.source.date_pattern={pattern}: not a regular expression ({error})") from error
    if expression.groups < 1:
        raise UserError(f"imagery.source.date_pattern={pattern}: needs a group in brackets around the date")
    match = expression.search(path.name)
    if match is None:
        raise UserError(f"{path.name}: no date in this name by date_pattern={pattern}; change the pattern or rename the file")
    found = match[1] or ""
    day = "-07-01" if re.fullmatch(r"\d{4}", found) else "-15" if re.fullmatch(r"\d{4}-\d{2}", found) else ""
    try:
        # noon, so that the date is the same in every viewer's time zone
        return datetime.fromisoformat(found + day).replace(hour=12, tzinfo=UTC)
    except ValueError as error:
        raise UserError(
            f"{path.name}: {found!r} is no date (needs 2020-01-13, 20200113, 2020-01 or 2020); change date_pattern"
        ) from error


def _item(path: Path, moment: datetime, source: FolderSource, notes: list[str]) -> pystac.Item:
    import pystac
    from shapely.geometry import mapping

    with open_raster(str(path)) as raster:
        facts = _checked_facts(raster, source)
        check_readable(raster)
        meanings = radiometry_of(facts, source)
        notes += [f"{path.name}: {note}" for note in look(raster, source, facts, meanings)]
        epsg = raster.crs.to_epsg()
        footprint = raster_footprint(tuple(raster.bounds), raster.crs.to_wkt())
        shape, transform = list(raster.shape), list(raster.transform)[:6]
    west, south, east, north = footprint.bounds
    properties: dict[str, Any] = {"proj:code": f"EPSG:{epsg}" if epsg else None, "proj:shape": shape, "proj:transform": transform}
    item = pystac.Item(
        path.stem,
        geometry=mapping(footprint),
        bbox=[west, south, east, north],
        datetime=moment,
        properties=properties,
        stac_extensions=_EXTENSIONS,
    )
    fields: dict[str, Any] = {"bands": [{"name": name} for name in source.bands]}
    fields["raster:bands"] = [_band_fields(meaning, facts.dtype, source) for meaning in meanings]
    fields["file:size"] = path.stat().st_size
    asset = pystac.Asset(
        f"{_FROM_ITEM}{path.name}", media_type="image/tiff; application=geotiff", roles=["data"], extra_fields=fields
    )
    item.add_asset("data", asset)
    return item


def _checked_facts(raster: DatasetReader, source: FolderSource) -> FileFacts:
    """What a file says of itself, if that agrees with the bands that the source lists."""
    if raster.count != len(source.bands):
        found = f"{raster.count} band{'s'[: raster.count != 1]}"
        raise UnreadableError("unreadable", f"{found} found, imagery.source.bands lists {len(source.bands)}")
    facts = facts_of(raster)
    if (wrong := contradiction(facts.names, source.bands, "imagery.source.bands")) is not None:
        raise UnreadableError("unreadable", wrong)
    return facts


def _band_fields(meaning: Radiometry, data_type: str, source: FolderSource) -> dict[str, Any]:
    """The entry of a band in `raster:bands`."""
    fields = {"scale": meaning.scale, "offset": meaning.offset, "data_type": data_type}
    if meaning.nodata is None:
        return fields
    # the whole number is how the default is written, to the byte
    return {**fields, "nodata": 0 if source.nodata == "file" and meaning.nodata == 0 else meaning.nodata}


def files_say(source: FolderSource, files: Sequence[Path]) -> dict[str, Any]:
    """What files say of themselves that decides how they are read, for a fingerprint: name → facts.

    Files whose numbers mean what they meant when folders were read without asking the files (integers without a mask, with 0 or
    nothing for no data) are left out, so that their products stay valid.
    """
    found: dict[str, Any] = {}
    former = Radiometry(USUAL_SCALE if source.scale is None else source.scale, source.offset or 0.0, 0.0)
    for path in files:
        try:
            with open_raster(str(path)) as raster:
                facts = _checked_facts(raster, source)
        except UnreadableError as error:
            found[path.name] = error.detail
            continue
        meanings = radiometry_of(facts, source)
        plain = all(replace(meaning, nodata=0.0) == former and meaning.nodata in (None, 0) for meaning in meanings)
        silent = source.nodata == "file" and meanings[0].nodata != 0
        if not plain or silent or facts.masked or np.issubdtype(np.dtype(facts.dtype), np.floating):
            found[path.name] = [[asdict(meaning) for meaning in meanings], facts.dtype, facts.masked]
    return found


def _write(target: Path, items: Sequence[pystac.Item]) -> None:
    import pystac
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    boxes = [item.bbox for item in items if item.bbox]
    west, south = (min(box[edge] for box in boxes) for edge in (0, 1))
    east, north = (max(box[edge] for box in boxes) for edge in (2, 3))
    moments = sorted(item.datetime for item in items if item.datetime)
    extent = pystac.Extent(pystac.SpatialExtent([[west, south, east, north]]), pystac.TemporalExtent([[moments[0], moments[-1]]]))
    collection = pystac.Collection(COLLECTION, "GeoTIFFs of one folder, one file per date", extent, license="other")
    collection.add_items(items)
    catalog = pystac.Catalog("imagery", "Scenes that places are read from")
    catalog.add_child(collection)
    # with the slash: pystac treats a last name with a dot as a file
    catalog.normalize_and_save(f"{target}/", pystac.CatalogType.SELF_CONTAINED)
    rows = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items]
    for row in rows:
        for asset in row["assets"].values():
            asset["href"] = asset["href"].replace(_FROM_ITEM, f"./{FOLDER_LINK}/")
    # an item that names its collection must link to it
    links = [{"rel": "collection", "href": f"./{COLLECTION}/collection.json", "type": "application/json"}]
    to_parquet(parse_stac_items_to_arrow([{**row, "links": links} for row in rows]), target / ITEMS)
