"""Understands the names that files and catalogs give to bands, in the spellings of common sensors and tools."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Bands by what they see, in the words of STAC's `eo:common_name`.
_SENTINEL_2 = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "rededge1", "b6": "rededge2", "b7": "rededge3",
    "b8": "nir", "b8a": "nir08", "b9": "nir09", "b10": "cirrus", "b11": "swir16", "b12": "swir22", "scl": "scl",
}  # fmt: skip
# Landsat's near infrared is as narrow as B8A, and everybody calls it nir.
_LANDSAT_8 = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir landsat", "b6": "swir16", "b7": "swir22", "b8": "pan",
    "b9": "cirrus", "b10": "lwir11", "b11": "lwir12",
}  # fmt: skip
_LANDSAT_4 = {
    "b1": "blue", "b2": "green", "b3": "red", "b4": "nir landsat", "b5": "swir16", "b6": "lwir", "b7": "swir22", "b8": "pan",
}  # fmt: skip
_WORDS = {
    "coastal": "coastal", "coastalaerosol": "coastal", "coastalblue": "coastal", "aerosol": "coastal", "ultrablue": "coastal",
    "blue": "blue", "green": "green", "red": "red",
    "rededge1": "rededge1", "rededge2": "rededge2", "rededge3": "rededge3", "rededge071": "rededge1", "rededge075": "rededge2",
    "rededge078": "rededge3", "re1": "rededge1", "re2": "rededge2", "re3": "rededge3",
    "vre1": "rededge1", "vre2": "rededge2", "vre3": "rededge3", "vnir1": "rededge1", "vnir2": "rededge2", "vnir3": "rededge3",
    "nir": "nir any", "nir1": "nir", "nearinfrared": "nir any", "infrared": "nir any", "widenir": "nir",
    "nir2": "nir08", "nir08": "nir08", "nira": "nir08", "nirnarrow": "nir08", "narrownir": "nir08", "rededge4": "nir08",
    "nir09": "nir09", "watervapour": "nir09", "watervapor": "nir09", "wv": "nir09", "cirrus": "cirrus",
    "swir16": "swir16", "swir1": "swir16", "swir22": "swir22", "swir2": "swir22",
    "pan": "pan", "panchromatic": "pan", "scl": "scl", "sceneclassification": "scl", "sceneclassificationlayer": "scl",
}  # fmt: skip
_ALIKE = {"nir any": {"nir", "nir08", "nir landsat", "nir any"}, "nir landsat": {"nir", "nir08", "nir landsat", "nir any"}}
_SENTINEL_NAMES = {what: f"B{code[1:].upper().zfill(2)}" if code != "scl" else "SCL" for code, what in _SENTINEL_2.items()}

_SENTINEL, _LANDSAT = (_SENTINEL_2,), (_LANDSAT_8, _LANDSAT_4)
_CODE = re.compile(r"(?<![a-z0-9])(?:(sr|toa|st)[_ -]?)?b(?:and)?[_ -]?0?(\d{1,2}a?)(?![a-z0-9])")
_NUMBERED = re.compile(r"(?:b|band|layer|channel)?[ _-]?0*(\d+)")
_NOT_IN_WORDS = re.compile(r"[\s_.()/,:-]+")


def same_band(one: str, other: str) -> bool:
    """Whether two names are spellings of one band, as Sentinel-2 names it: `B4`, `b04`, `B04_10m`, `Red`."""
    first, second = _meaning(one, _SENTINEL_2), _meaning(other, _SENTINEL_2)
    return first is not None and second is not None and _alike(first, second)


def spelled_as(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """`names`, of which those that can only be one of the `wanted` bands in another spelling are replaced by it."""
    found = list(names)
    for band in wanted:
        others = [place for place, name in enumerate(names) if name not in wanted and same_band(name, band)]
        if band not in names and len(others) == 1:
            found[others[0]] = band
    return tuple(found)


def contradiction(named: Sequence[str | None], given: Sequence[str], setting: str) -> str | None:
    """Where a file's own names of its bands speak against the names that are given to them.

    A number (`B4`) means the band of Sentinel-2 where the given names are Sentinel-2's, else that of any sensor of the table under
    which all names agree; `SR_B4` is always Landsat's. Names that count (`Band 1`, `Band 2`, …) and those in no table say nothing.

    Args:
        named: by the file, in its order.
        given: by the user, in the same order.
        setting: that gives them, for the message.

    Returns:
        The sentence that follows the file's name, or None.
    """
    if len(named) != len(given) or not any(named) or _count_up(named):
        return None
    pairs = [((name or "").strip(), band) for name, band in zip(named, given, strict=True)]
    listed = ", ".join(name or "?" for name, _ in pairs)
    plain = [name.lower() for name, _ in pairs]
    if plain != [band.lower() for band in given] and sorted(plain) == sorted(band.lower() for band in given):
        return f"names its bands {listed}: another order than {setting}"
    against = min((_against(pairs, table) for table in _tables(pairs)), key=len)
    if not against:
        return None
    if all(any(_told(name, band) for band in given) for name, _ in pairs):
        return f"names its bands {listed}: another order than {setting}"
    number, name, band = against[0]
    return f"names its bands {listed}: its band {number} is {name}, {setting} says {band}"


def _tables(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    """The sensors whose numbers the names of a file may be."""
    codes = [match for name, _ in pairs if (match := _CODE.search(name.lower()))]
    if any(match[1] for match in codes):
        return _LANDSAT
    return _SENTINEL if any(_CODE.search(band.lower()) for _, band in pairs) else (*_SENTINEL, *_LANDSAT)


def _against(pairs: Sequence[tuple[str, str]], table: dict[str, str]) -> list[tuple[int, str, str]]:
    """Number (from 1), own and given name of the bands that are not the same."""
    found = []
    for number, (name, band) in enumerate(pairs, start=1):
        own, theirs = _meaning(name, table), _meaning(band, _SENTINEL_2)
        if name.lower() != band.lower() and own is not None and theirs is not None and not _alike(own, theirs):
            found.append((number, name, band))
    return found


def _told(name: str, band: str) -> bool:
    return name.lower() == band.lower() or same_band(name, band)


def _meaning(name: str, table: dict[str, str]) -> str | None:
    """What a band sees, by its name; None: in no table, or more than one band is named."""
    text = name.strip().lower()
    if "refl_b" in text:
        return None  # MODIS numbers its bands in an order of its own
    word = _NOT_IN_WORDS.sub("", text)
    if word in table:
        return table[word]
    if word in _WORDS:
        return _WORDS[word]
    codes = {table[code] for match in _CODE.finditer(text) if (code := f"b{match[2]}") in table}
    if len(codes) == 1:
        return codes.pop()
    if codes:
        return None
    words = {_WORDS[part] for part in _NOT_IN_WORDS.split(text) if part in _WORDS}
    return words.pop() if len(words) == 1 else None


def _alike(one: str, other: str) -> bool:
    return one == other or other in _ALIKE.get(one, ()) or one in _ALIKE.get(other, ())


def _count_up(named: Sequence[str | None]) -> bool:
    """Whether the names only count the bands: 1, 2, 3, … in order."""
    numbers = [_NUMBERED.fullmatch((name or "").strip().lower()) for name in named]
    return all(match is not None and int(match[1]) == place for place, match in enumerate(numbers, start=1))
