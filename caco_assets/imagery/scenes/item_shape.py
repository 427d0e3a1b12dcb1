"""Checks that a foreign STAC item has the shape that STAC gives it, before any of it is used."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from caco_assets.imagery.scenes.radiometry import APPLIED_KEYS
from caco_assets.imagery.scenes.stac_item import (
    BASELINE_KEYS,
    COMMON_NAMES,
    NAME_KEYS,
    PICTURES,
    TYPE_KEYS,
    MalformedItemError,
    footprint_of,
    utc,
)

PROPERTIES = (
    *("datetime", "eo:cloud_cover", "proj:code", "proj:epsg", *APPLIED_KEYS),
    *(*BASELINE_KEYS, *NAME_KEYS, *TYPE_KEYS),
)
"""The properties of an item that are used."""
FACTS = ("href", "gsd", "bands", "eo:bands", "raster:bands", "nodata", "scale", "offset", "spatial_resolution")
"""The fields of an asset that are used, and those that begin with `raster:`."""
MALFORMED = "is malformed: "
_KEYS = {key.lower() for pair in COMMON_NAMES.items() for key in pair} | {"data"}
_SIZE_IN_KEY = re.compile(r"_\d+m$")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters of no name or address; half a surrogate pair cannot even be written."""
_MODEL = re.compile(r"a valid dictionary( or instance of \w+)?")
LONGEST = 8192
"""Characters of an id or an address."""
_UNION_MEMBERS = ("str", "int", "function-after[_plain(), str]", "function-after[_plain(), constrained-str]")
"""Parts of pydantic's locations that name a type and no field."""
_LONGEST_ID = 200


def _plain(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("holds control characters")
    return text


def _not_infinite(number: float) -> float:
    # NaN is how some tables write an unknown number
    if math.isinf(number):
        raise ValueError("should be a finite number")
    return number


Text = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_plain)]


class _Band(BaseModel):
    """What is read of a band, in `bands`, `eo:bands`, `raster:bands` or the asset itself."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, AfterValidator(_plain)] | None = None
    gsd: FiniteFloat | None = None
    spatial_resolution: FiniteFloat | None = None
    scale: FiniteFloat | None = None
    offset: FiniteFloat | None = None
    nodata: float | None = None
    raster_scale: FiniteFloat | None = Field(default=None, alias="raster:scale")
    raster_offset: FiniteFloat | None = Field(default=None, alias="raster:offset")
    raster_resolution: FiniteFloat | None = Field(default=None, alias="raster:spatial_resolution")


class _Asset(_Band):
    href: Text
    bands: list[_Band] | None = None
    eo_bands: list[_Band] | None = Field(default=None, alias="eo:bands")
    raster_bands: list[_Band] | None = Field(default=None, alias="raster:bands")


class _Properties(BaseModel):
    model_config = ConfigDict(extra="ignore")

    cloud_cover: Annotated[float, AfterValidator(_not_infinite)] | None = Field(default=None, alias="eo:cloud_cover")
    epsg: int | None = Field(default=None, alias="proj:epsg", ge=0, lt=2**31)


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: Text | int
    collection: Annotated[str, AfterValidator(_plain)] | int | None = None
    geometry: dict[str, Any] | None = None
    properties: _Properties
    assets: dict[str, Any]


_ASSETS: TypeAdapter[dict[str, _Asset]] = TypeAdapter(dict[str, _Asset])


def used_parts(item: Any) -> dict[str, Any]:
    """The parts of a STAC item (as JSON) that are used, checked; the others, whatever they hold, are left out.

    Raises:
        MalformedItemError: a part has another type than STAC gives it; the reason names the field.
    """
    try:
        _Item.model_validate(_given(item))
    except ValidationError as error:
        raise MalformedItemError(f"{MALFORMED}{_first(error)}") from error
    if item["properties"].get("datetime"):
        utc(item["properties"]["datetime"])
    if item.get("geometry"):
        footprint_of(item["geometry"])
    kept = {key: item.get(key) for key in ("id", "collection", "geometry")}
    properties = {name: value for name, value in item["properties"].items() if name in PROPERTIES}
    return {**kept, "properties": properties, "assets": used_assets(item["assets"])}


def used_assets(assets: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """The assets that may hold a band, checked, with the fields that are used.

    Raises:
        MalformedItemError: see `used_parts`.
    """
    relevant = {key: asset for key, asset in assets.items() if isinstance(key, str) and _may_hold_a_band(key, asset)}
    try:
        _ASSETS.validate_python({key: _given(asset) for key, asset in relevant.items()})
    except ValidationError as error:
        raise MalformedItemError(f"{MALFORMED}assets.{_first(error)}") from error
    return {
        key: {name: value for name, value in asset.items() if name in FACTS or str(name).startswith("raster:")}
        for key, asset in relevant.items()
    }


def item_name(item: Any) -> str:
    """The item's id for a list of refusals; of an item without one, a name that its content gives."""
    found = item.get("id") if isinstance(item, Mapping) else None
    if isinstance(found, str | int) and str(found):
        return CONTROL.sub("?", str(found))[:_LONGEST_ID]
    try:
        text = json.dumps(item, default=repr, skipkeys=True)
    except (RecursionError, ValueError):  # nested too deeply, or in itself
        text = ""
    return f"unnamed-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def _given(value: Any) -> Any:
    """A mapping without what it holds as null: a table cannot tell null from absent."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, Mapping) else value


def _may_hold_a_band(key: str, asset: Any) -> bool:
    if _SIZE_IN_KEY.sub("", key.lower()) in PICTURES:
        return False
    names_bands = isinstance(asset, Mapping) and bool({"bands", "eo:bands"} & asset.keys())
    return names_bands or key.split("_", maxsplit=1)[0].lower() in _KEYS


def _first(error: ValidationError) -> str:
    """Field and problem, without the value: refusals are counted by reason."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"] if part not in _UNION_MEMBERS)
    message = _MODEL.sub("an object", problem["msg"].removeprefix("Value error, "))
    return f"{CONTROL.sub('?', place)[:80]}: {message[:1].lower()}{message[1:]}" if place else message
