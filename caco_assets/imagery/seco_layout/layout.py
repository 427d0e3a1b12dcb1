"""The published layout: a folder per place, in it a folder per date, in it a GeoTIFF per band.

Facts, from the code that wrote and reads these sets (github.com/ServiceNow/seasonal-contrast, `datasets/seco_downloader.py` and
`seco_dataset.py`; github.com/utkarshmall13/CACo, `src/datasets/seco_dataset.py`):

- Place folders are numbers of six digits. Date folders are named by the scene's Earth Engine index, which begins with its time
  (`20200715T105031_20200715T105033_T30TYK`), so that their names sort by time. CACo takes the five newest dates of a place for
  the late period and the others for the early one.
- Bands are B1 … B9, B8A, B11, B12: 264 pixels on a side at 10 m, 132 at 20 m, 44 at 60 m.
- Pixels are uint8 = reflectance × 255, without a value for no data (scenes with masked pixels there were not taken), as JPEG.
- They are the pixels of the scene's own UTM grid; the georeference, in degrees, is only the box around them.
- `metadata.json` of a date holds the scene's properties, among them `system:time_start` (milliseconds) and
  `CLOUDY_PIXEL_PERCENTAGE`. A file `<date>.tif` beside a date folder is a preview.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError, one_line

METADATA = "metadata.json"
TIFF_SUFFIXES = (".tif", ".tiff")
OWN = "caco"
"""Key in `metadata.json` for the fields of an export that the layout does not have."""
_OURS, _THEIRS = re.compile(r"^B0(\d)$"), re.compile(r"^B(\d)$")
_MOMENT = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:T(\d{2})(\d{2})(\d{2}))?")


@dataclass(frozen=True)
class DateFolder:
    """One date of one place."""

    path: Path
    datetime: datetime
    """UTC; noon where only the day is known."""
    metadata: Mapping[str, Any]
    """Of the scene; empty where there is no `metadata.json`."""

    @property
    def own(self) -> Mapping[str, Any]:
        """Metadata that our own export wrote for this date."""
        found = self.metadata.get(OWN)
        return found if isinstance(found, dict) else {}

    @property
    def cloud_cover(self) -> float | None:
        """Percent of the scene."""
        value = self.metadata.get("CLOUDY_PIXEL_PERCENTAGE")
        return None if value is None else float(value)


@dataclass(frozen=True)
class PlaceFolder:
    """One place; its number comes from its name."""

    number: int
    path: Path

    @property
    def location_id(self) -> str:
        """`L0000123` for the folder `000123`."""
        return f"L{self.number:07d}"


def published_name(band: str) -> str:
    """`B04` → `B4`; other names are the same in both."""
    return _OURS.sub(r"B\1", band)


def band_file(folder: Path, band: str) -> Path | None:
    """The file of a band in a date folder, `B4.tif`, `B04.TIF` or `b4.tiff`; None if it is missing."""
    names = (published_name(band), band, _THEIRS.sub(r"B0\1", band))
    for name in names:
        if (path := folder / f"{name}.tif").is_file():
            return path
    # some tools write capitals; names are compared alike everywhere
    stems = {name.casefold() for name in names}
    others = (path for path in folder.iterdir() if path.suffix.casefold() in TIFF_SUFFIXES and path.stem.casefold() in stems)
    return next(iter(sorted(path for path in others if path.is_file())), None)


def list_places(root: Path) -> list[PlaceFolder]:
    """The place folders of a set, by number.

    Raises:
        UserError: no such folder, none named by a number, or two with the same number.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    found = [PlaceFolder(int(path.name), path) for path in root.iterdir() if path.name.isdecimal() and path.is_dir()]
    if not found:
        raise UserError(f"{root}: no folder in it is named by a number (000000, 000001, …); name the folder that holds the places")
    found.sort(key=lambda place: (place.number, place.path.name))
    for one, other in itertools.pairwise(found):
        if one.number == other.number:
            raise UserError(f"{root}: {one.path.name} and {other.path.name} are the same number; each place needs one of its own")
    return found


def list_dates(place: PlaceFolder) -> tuple[list[DateFolder], dict[str, str]]:
    """The date folders of a place, oldest first, and those that cannot be dated (name → reason)."""
    dates, refused = [], {}
    for path in sorted(path for path in place.path.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            metadata = _metadata(path)
            dates.append(DateFolder(path, _moment(path.name, metadata), metadata))
        except ValueError as error:
            refused[path.name] = str(error)
    return sorted(dates, key=lambda date: (date.datetime, date.path.name)), refused


def _metadata(folder: Path) -> Mapping[str, Any]:
    path = folder / METADATA
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"its {METADATA} is not JSON ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise ValueError(f"its {METADATA} is no JSON object")
    return found


def _moment(name: str, metadata: Mapping[str, Any]) -> datetime:
    own = metadata.get(OWN)
    if isinstance(own, dict) and "datetime" in own:
        return datetime.fromisoformat(str(own["datetime"])).astimezone(UTC)
    if isinstance(milliseconds := metadata.get("system:time_start"), int | float):
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    match = _MOMENT.search(name)
    if match is None:
        raise ValueError(f"its name holds no date (needs 20200715T105031 or 2020-07-15), and there is no {METADATA} with one")
    year, month, day, *time = (None if part is None else int(part) for part in match.groups())
    clock = (12, 0, 0) if time[0] is None else time
    try:
        return datetime(year or 0, month or 0, day or 0, *(part or 0 for part in clock), tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"its name holds no date: {match[0]} ({error})") from error
