"""Imagery sources: one section per source type."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FieldSerializationInfo, field_serializer, field_validator, model_validator

from caco_assets.settings.frozen import Frozen


class SyntheticSource(Frozen):
    """The embedded Earth, written as a static STAC catalog of COGs."""

    kind: Literal["synthetic"] = "synthetic"
    scenes_per_season: int = Field(default=2, ge=1)
    """Acquisitions of a city per season and period; some of them are cloudy."""
    changed_share: float = Field(default=0.3, ge=0, le=1)
    """Share of places with true long-term change between the two periods."""
    benchmark_images_per_class: int = Field(default=100, ge=10)
    """Size of the EuroSAT twin: images in each of the ten classes."""
    calendar: str | None = Field(default=None, pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """The vintage whose periods set the overpass dates, so that nearby vintages share scenes; none: the run's own."""


USUAL_SCALE = 1e-4
"""Reflectance per digital number of 16-bit products, Sentinel-2's among them."""


class FolderSource(Frozen):
    """A folder of GeoTIFFs, one multi-band file per date, indexed as a STAC catalog by `caco catalog build`."""

    kind: Literal["folder"] = "folder"
    path: Path
    bands: tuple[str, ...]
    """Band names in file order."""
    date_pattern: str = r"(\d{4}-\d{2}-\d{2})"
    """Regular expression whose first group is the date in the file name."""
    scale: float | None = Field(default=None, gt=0)
    """Reflectance per digital number; none: the file's value, else 1e-4."""
    offset: float | None = None
    """Reflectance at digital number 0; none: the file's value, else 0."""
    nodata: float | Literal["file"] | None = "file"
    """Digital number that means no data; none: every number is data; `file`: the file's value, else 0."""

    @field_validator("nodata", mode="before")
    @classmethod
    def _number_or_file(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "file":
            try:
                return float(value)
            except ValueError as error:
                raise ValueError("needs a number, or `file` for the file's own value, or none") from error
        return value

    @field_serializer("scale", "offset", "nodata")
    def _former_defaults(self, value: float | str | None, info: FieldSerializationInfo) -> Any:
        """Keep the former defaults, which did not ask the file, in dumps that enter fingerprints (see `Frozen`)."""
        if info.by_alias is False:
            return value
        former = {"scale": (None, USUAL_SCALE), "offset": (None, 0.0), "nodata": ("file", 0.0)}[str(info.field_name)]
        return former[1] if value == former[0] else value


Format = Literal["ENVI", "JPEG", "NITF", "PNG"]
"""GDAL's names of formats whose files name no other files."""


class CatalogSource(Frozen):
    """A static STAC catalog on disk."""

    kind: Literal["catalog"] = "catalog"
    path: Path
    formats: tuple[Format, ...] = Field(default=(), exclude_if=operator.not_)
    """Formats that its files may have, beside GeoTIFF and JPEG 2000."""


PROVIDERS: dict[str, dict[str, str | int]] = {
    # public bucket of GeoTIFFs (COG); answers are limited to 6 MB
    "earth_search": {"url": "https://earth-search.aws.element84.com/v1", "page_size": 100},
    # GeoTIFFs (COG) behind tokens that are free for anyone
    "planetary_computer": {
        "url": "https://planetarycomputer.microsoft.com/api/stac/v1",
        "signer": "planetary_computer",
        "page_size": 250,
    },
    # JPEG 2000 in an S3 store that needs the user's own keys
    "cdse": {"url": "https://stac.dataspace.copernicus.eu/v1", "signer": "s3", "page_size": 250},
}
"""Published values of each named provider; every value can be overridden."""


class StacApiSource(Frozen):
    """A STAC API: a named provider, or any other given by `url`."""

    kind: Literal["stac_api"] = "stac_api"
    provider: Literal["earth_search", "planetary_computer", "cdse"] | None = None
    """The provider, whose published values fill the fields below."""
    url: str
    """Address of the API's landing page."""
    collection: str = "sentinel-2-l2a"
    """Name of the collection of Sentinel-2 Level-2A."""
    signer: Literal["none", "planetary_computer", "s3"] = "none"
    """How files are accessed: directly, with tokens of the Planetary Computer, or from S3 with the keys in `AWS_…`."""
    page_size: int = Field(default=250, ge=1, le=10_000)
    """Items per page; reduced automatically if the server cannot send that many."""
    connections: int = Field(default=4, ge=1, le=64)
    """Concurrent searches."""
    formats: tuple[Format, ...] = Field(default=(), exclude_if=operator.not_)
    """Formats that its files may have, beside GeoTIFF and JPEG 2000."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if not values.get("url") and not values.get("provider"):
            raise ValueError(f"name a provider ({', '.join(PROVIDERS)}) or give the url of a STAC API")
        return {**PROVIDERS.get(str(values.get("provider")), {}), **values}


class SecoLayoutSource(Frozen):
    """A set in the layout of SeCo and CACo (`000123/<date>/B4.tif`), converted to an archive once by `caco archive import`."""

    kind: Literal["seco_layout"] = "seco_layout"
    periods: Literal["gap", "halves", "calendar"] = "gap"
    """How a place's dates are split into early and late: at their longest gap, by count, or by the profile's calendar."""
    scale: float | None = Field(default=None, gt=0)
    """Reflectance per digital number; none: the file's value, else 1/255 for uint8 and 1/10 000 for 16 bits."""
    offset: float | None = None
    """Reflectance at digital number 0; none: the file's value, else 0."""
    nodata: float | None = None
    """Digital number that means no data; none: the file's value."""

    @field_serializer("kind")
    def _first_name(self, kind: str, info: FieldSerializationInfo) -> str:
        """Keep the original name of the kind in dumps, as for renamed fields (see `Frozen`)."""
        return kind if info.by_alias is False else "published"


Source = Annotated[
    SyntheticSource | FolderSource | CatalogSource | StacApiSource | SecoLayoutSource,
    Field(discriminator="kind"),
]

SOURCES: dict[str, type[Frozen]] = {source.model_fields["kind"].default: source for source in get_args(get_args(Source)[0])}
"""Kind → class, of every source in the union."""
