"""Where imagery comes from: one section per kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FieldSerializationInfo, field_serializer, model_validator

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
    """The vintage whose periods say when overpasses happen, so that vintages near it share scenes; none: the run's own."""


class FolderSource(Frozen):
    """A folder of GeoTIFFs, one multi-band file per date, indexed as a STAC catalog by `caco catalog build`."""

    kind: Literal["folder"] = "folder"
    path: Path
    bands: tuple[str, ...]
    """Band names in file order."""
    date_pattern: str = r"(\d{4}-\d{2}-\d{2})"
    """Regular expression whose first group is the date in the file name."""
    scale: float = Field(default=1e-4, gt=0)
    """Reflectance per digital number."""
    offset: float = 0.0
    """Reflectance at digital number 0."""
    nodata: float | None = 0


class CatalogSource(Frozen):
    """A static STAC catalog on disk."""

    kind: Literal["catalog"] = "catalog"
    path: Path


PROVIDERS: dict[str, dict[str, str | int]] = {
    # public bucket of GeoTIFFs (COG); answers are limited to 6 MB
    "earth_search": {"url": "https://earth-search.aws.element84.com/v1", "page_size": 100},
    # GeoTIFFs (COG) behind tokens that anyone may have for the asking
    "planetary_computer": {
        "url": "https://planetarycomputer.microsoft.com/api/stac/v1",
        "signer": "planetary_computer",
        "page_size": 250,
    },
    # JPEG 2000 in an S3 store that needs keys of one's own
    "cdse": {"url": "https://stac.dataspace.copernicus.eu/v1", "signer": "s3", "page_size": 250},
}
"""What a named provider publishes of itself; every value can be set otherwise."""


class StacApiSource(Frozen):
    """A STAC API: a named provider, or any other by its `url`."""

    kind: Literal["stac_api"] = "stac_api"
    provider: Literal["earth_search", "planetary_computer", "cdse"] | None = None
    """Fills the fields below with what it publishes."""
    url: str
    """Address of the API's landing page."""
    collection: str = "sentinel-2-l2a"
    """Name of the collection of Sentinel-2 Level-2A."""
    signer: Literal["none", "planetary_computer", "s3"] = "none"
    """How files are made readable: as they are, with tokens of the Planetary Computer, or from S3 with the keys in `AWS_…`."""
    page_size: int = Field(default=250, ge=1, le=10_000)
    """Items asked for at a time; smaller pages follow where the server cannot send so many."""
    connections: int = Field(default=4, ge=1, le=64)
    """Searches at a time."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if not values.get("url") and not values.get("provider"):
            raise ValueError(f"name a provider ({', '.join(PROVIDERS)}) or give the url of a STAC API")
        return {**PROVIDERS.get(str(values.get("provider")), {}), **values}


class SecoLayoutSource(Frozen):
    """A set in the layout of SeCo and CACo (`000123/<date>/B4.tif`), made an archive once by `caco archive import`."""

    kind: Literal["seco_layout"] = "seco_layout"
    periods: Literal["gap", "halves", "calendar"] = "gap"
    """What parts a place's dates in early and late: their longest pause, their number, or the profile's calendar."""
    scale: float | None = Field(default=None, gt=0)
    """Reflectance per digital number; none: what a file says, else 1/255 for uint8 and 1/10 000 for 16 bits."""
    offset: float | None = None
    """Reflectance at digital number 0; none: what a file says, else 0."""
    nodata: float | None = None
    """Digital number that means no data; none: what a file says."""

    @field_serializer("kind")
    def _first_name(self, kind: str, info: FieldSerializationInfo) -> str:
        """Dumps keep the first name of the kind, as those of renamed fields do (see `Frozen`)."""
        return kind if info.by_alias is False else "published"


Source = Annotated[
    SyntheticSource | FolderSource | CatalogSource | StacApiSource | SecoLayoutSource,
    Field(discriminator="kind"),
]

SOURCES: dict[str, type[Frozen]] = {source.model_fields["kind"].default: source for source in get_args(get_args(Source)[0])}
"""Kind → class, of every source in the union."""
