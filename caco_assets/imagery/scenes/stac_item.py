"""Reads one STAC item of any supported provider as a scene."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from caco_assets.imagery.geometry.footprint import across_antimeridian
from caco_assets.imagery.scenes.band_names import same_band
from caco_assets.imagery.scenes.hrefs import href_problem
from caco_assets.imagery.scenes.radiometry import Radiometry, radiometry_of

# Keys of Element 84's Earth Search v1 and of stactools-sentinel2.
COMMON_NAMES = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07",
    "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10", "swir16": "B11", "swir22": "B12", "scl": "SCL",
}  # fmt: skip
# Rendered images: they carry band names and even the role `data`, but no reflectance.
PICTURES = {"visual", "preview", "overview", "thumbnail", "rendered_preview", "tci", "tilejson"}
_BAND_KEY = re.compile(r"^(B\d[\dA]|SCL)(?:_(\d+)m)?$", re.IGNORECASE)
_COMMON_KEY = re.compile(r"^([a-z]+\d*)(?:_(\d+)m)?$")
_SIZE_IN_KEY = re.compile(r"_\d+m$")
_BASELINE_IN_NAME = re.compile(r"_N(\d{2})(\d{2})_")
BASELINE_KEYS = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
NAME_KEYS = ("s2:product_uri", "sentinel:product_id", "s2:product_id")
TYPE_KEYS = ("s2:product_type", "product:type")
LEVEL_1_TYPES = ("S2MSI1C", "L1C")
_EPSG = re.compile(r"EPSG:(\d{1,9})", re.IGNORECASE)
NO_DATE, NO_FOOTPRINT = "has no datetime", "has no footprint"
LEVEL_1 = "is Level-1C (top of atmosphere), not L2A surface reflectance"

BAND_MARK = "#band="
"""Separates the file from the number (from 1) of a band inside it, in an href."""


class ItemRefusedError(Exception):
    """The item cannot be used; the message is the reason."""


class MalformedItemError(ItemRefusedError):
    """The item is not what STAC says an item is: the response that brought it is not kept, so that a repaired one is seen."""


@dataclass(frozen=True)
class Scene:
    """One acquisition of one tile, with everything that a row of `scenes.parquet` holds about it."""

    item_id: str
    datetime: datetime
    """UTC."""
    cloud_cover: float | None
    """Percent; None if unknown."""
    epsg: int | None
    processing_baseline: str | None
    radiometry: Radiometry
    """Reflectance = DN · scale + offset, of most bands."""
    exceptions: Mapping[str, Radiometry]
    """Bands whose radiometry differs from the others'."""
    hrefs: Mapping[str, str]
    """Band → file, as in the catalog; a band of a multi-band file ends in `#band=3`."""
    geometry: BaseGeometry = field(repr=False)
    """Footprint, EPSG:4326; in two parts across the antimeridian."""


def scene_from_item(item: Mapping[str, Any], bands: tuple[str, ...], helpers: tuple[str, ...] = (), *, local: bool = True) -> Scene:
    """The scene that a STAC item (as JSON) describes.

    Args:
        item: STAC 1.0 or 1.1 item of Sentinel-2 L2A, or of a folder's own files.
        bands: required band names.
        helpers: bands included if the item has them and no SCL (the clear-sky test uses them).
        local: its catalog lies on this machine and may name files of it.

    Raises:
        ItemRefusedError: it is L1C, lacks a band, a footprint or a date, does not give the meaning of its numbers, or has an href
            that must not be read.
    """
    properties = item["properties"]
    _refuse_level_1(item)
    if not properties.get("datetime"):
        raise ItemRefusedError(NO_DATE)
    if not item.get("geometry"):
        raise ItemRefusedError(NO_FOOTPRINT)
    baseline = processing_baseline(item)
    usual, exceptions, hrefs = read_assets(item["assets"], properties, baseline, bands, helpers)
    for href in hrefs.values():
        if (wrong := href_problem(href, local=local)) is not None:
            raise ItemRefusedError(wrong)
    return Scene(
        item_id=str(item["id"]),
        datetime=utc(properties["datetime"]),
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        epsg=_epsg(properties),
        processing_baseline=baseline,
        radiometry=usual,
        exceptions=exceptions,
        hrefs=hrefs,
        geometry=footprint_of(item["geometry"]),
    )


def read_assets(
    assets: Mapping[str, Mapping[str, Any]],
    properties: Mapping[str, Any],
    baseline: str | None,
    bands: tuple[str, ...],
    helpers: tuple[str, ...],
) -> tuple[Radiometry, dict[str, Radiometry], dict[str, str]]:
    """The usual radiometry of an item's bands, the bands that differ, and band → href in the order of `bands`.

    A band that the item names in another spelling (`B4`, `b04`, `red`) counts as the wanted one if no other could be meant.

    Raises:
        ItemRefusedError: a band is missing, nothing gives the meaning of its numbers, or bands differ in their nodata value.
    """
    found = dict(_bands(assets))
    for band in bands:
        others = [name for name in found if name not in bands and same_band(name, band)]
        if band not in found and len(others) == 1:
            found[band] = found[others[0]]
    lacking = [band for band in bands if band not in found]
    if lacking:
        raise ItemRefusedError(f"lacks {', '.join(lacking)}")
    wanted = [*bands, "SCL"] if "SCL" in found else [*bands, *(name for name in helpers if name in found and name not in bands)]
    try:
        meanings = {name: radiometry_of(found[name][1], properties, baseline) for name in wanted if name != "SCL"}
    except ValueError as error:
        raise ItemRefusedError(str(error)) from error
    unknown = [name for name, meaning in meanings.items() if meaning is None]
    if unknown:
        raise ItemRefusedError(f"says neither by raster:bands nor by a processing baseline what the numbers of {unknown[0]} mean")
    known = {name: meaning for name, meaning in meanings.items() if meaning is not None}
    if len({meaning.nodata for meaning in known.values()}) > 1:
        raise ItemRefusedError("gives its bands different nodata values")
    usual = Counter(known.values()).most_common(1)[0][0]
    exceptions = {name: meaning for name, meaning in known.items() if meaning != usual}
    return usual, exceptions, {name: found[name][0] for name in wanted}


def processing_baseline(item: Mapping[str, Any]) -> str | None:
    """`NN.NN`, from the properties or from the product's name."""
    properties = item["properties"]
    for key in BASELINE_KEYS:
        if re.fullmatch(r"\d\d\.\d\d", str(properties.get(key, ""))):
            return str(properties[key])
    for name in (*(str(properties.get(key, "")) for key in NAME_KEYS), str(item["id"])):
        if match := _BASELINE_IN_NAME.search(name):
            return f"{match[1]}.{match[2]}"
    return None


def _refuse_level_1(item: Mapping[str, Any]) -> None:
    properties = item["properties"]
    names = [str(item["id"]), str(item.get("collection") or ""), *(str(properties.get(key, "")) for key in NAME_KEYS)]
    if any(properties.get(key) in LEVEL_1_TYPES for key in TYPE_KEYS) or any("L1C" in name.upper() for name in names):
        raise ItemRefusedError(LEVEL_1)


def _bands(assets: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """Band → (href, its raster facts); of several resolutions of a band the finest."""
    finest: dict[str, float] = {}
    for key, asset in sorted(assets.items()):
        if _SIZE_IN_KEY.sub("", key.lower()) in PICTURES:
            continue
        rasters = asset.get("raster:bands") or [{}]
        named = asset.get("bands") or asset.get("eo:bands") or []
        # one band under a key that names none (a folder's `data`): the band's own name counts, as with several
        if len(named) > 1 or (key == "data" and len(named) == 1):
            for number, band in enumerate(named, start=1):
                facts = {**asset, **band, **(rasters[number - 1] if len(rasters) == len(named) else rasters[0])}
                yield band.get("name", ""), (f"{asset['href']}{BAND_MARK}{number}", facts)
            continue
        name, resolution = _band_of_key(key)
        if name is None:
            continue
        facts = {**asset, **(named[0] if named else {}), **rasters[0]}
        metres = resolution or _number(facts.get("spatial_resolution")) or _number(asset.get("gsd")) or 0.0
        # a plain key (`blue`) is the provider's first choice; only among keys with a size does the finest win
        if name in finest and metres >= finest[name]:
            continue
        finest[name] = metres
        yield name, (asset["href"], facts)


def _band_of_key(key: str) -> tuple[str | None, float | None]:
    if match := _BAND_KEY.match(key):
        return match[1].upper(), float(match[2]) if match[2] else None
    if (match := _COMMON_KEY.match(key)) and match[1] in COMMON_NAMES:
        return COMMON_NAMES[match[1]], float(match[2]) if match[2] else None
    return None, None


def footprint_of(geometry: Any) -> BaseGeometry:
    """A GeoJSON geometry in degrees, in two parts across the antimeridian.

    Raises:
        MalformedItemError: it is none, or is not in degrees.
    """
    try:
        drawn = shape(geometry)
        west, south, east, north = drawn.bounds
    except (ShapelyError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise MalformedItemError("has a footprint that is no GeoJSON geometry") from error
    # not a number compares as False; beyond 180 is a footprint drawn across the antimeridian
    if not (-540 <= west <= east <= 540 and -91 <= south <= north <= 91):
        raise MalformedItemError("has a footprint that is empty or not in degrees")
    return across_antimeridian(drawn)


def _epsg(properties: Mapping[str, Any]) -> int | None:
    """The EPSG code; None if the projection has none (`EPSG:None` is how some writers say so): the files name theirs."""
    code = properties.get("proj:code")
    if isinstance(code, str) and (match := _EPSG.fullmatch(code)):
        return int(match[1])
    return int(properties["proj:epsg"]) if properties.get("proj:epsg") is not None else None


def utc(value: Any) -> datetime:
    """A date and time, as ISO text or an object, in UTC; one without a zone is in UTC.

    Raises:
        MalformedItemError: it is neither.
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedItemError("has a datetime that is no date") from error


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return None if number is None or math.isnan(number) else number
