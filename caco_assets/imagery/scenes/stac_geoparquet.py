"""Scenes from the columns of stac-geoparquet, about 100 000 items a second.

Items of one provider differ in ids, times, footprints and hrefs, and hardly in their band metadata. Rows with the same metadata
are found by comparing columns; `stac_item.read_assets` then reads one row of each kind, with placeholders for its hrefs. This
is a shortcut for tables whose every value is as STAC has it: any other is read row by row as JSON, like the items of all catalogs.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
import shapely.geometry
from numpy.typing import NDArray

from caco_assets.imagery.geometry.footprint import across_antimeridian
from caco_assets.imagery.scenes.clear_sky import TEST_BANDS
from caco_assets.imagery.scenes.hrefs import DEPTHS, SCHEMES, href_problem, unpack
from caco_assets.imagery.scenes.item_shape import LONGEST, used_assets
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.radiometry import APPLIED_KEYS
from caco_assets.imagery.scenes.scene_table import SCENES, exceptions_json, scene_table, usable_scenes
from caco_assets.imagery.scenes.stac_item import (
    BAND_MARK,
    BASELINE_KEYS,
    LEVEL_1,
    LEVEL_1_TYPES,
    NAME_KEYS,
    NO_DATE,
    NO_FOOTPRINT,
    TYPE_KEYS,
    ItemRefusedError,
    read_assets,
)

_BAND_FACTS = {
    *("raster:bands", "bands", "eo:bands", "name", "gsd", "spatial_resolution"),
    *("scale", "offset", "nodata", "raster:scale", "raster:offset"),
}
"""Everything that `stac_item.read_assets` uses of an asset, except its href."""
_PROPERTIES = ("id", "collection", "datetime", "geometry", "eo:cloud_cover", "proj:code", "proj:epsg")
_PLAIN_TEXT = r"^[ !#-\[\]-~]*$"
"""Text that JSON writes unchanged: printable ASCII without quote and backslash."""
_NAME = r"^[^\x00-\x1f\x7f]+$"
_FIRST, _END = -62_135_596_800_000_000, 253_402_300_800_000_000
"""The first microsecond of the year 1 and of the year 10 000, which Python does not know."""
_ODD_START = r'(?i):"(\s|\\u|<|/vsi)'
_ANY_SCHEME, _USUAL_SCHEME = r'(?i):"[a-z][a-z0-9+.-]*:/', rf'(?i):"({"|".join(SCHEMES)}):/'
"""In packed hrefs: the starts that `hrefs.href_problem` has to look at."""
_MARK = re.compile(f"\0(.*)\0({BAND_MARK}\\d+)?")

Codes = NDArray[np.int64]


def wanted_columns(schema: pa.Schema) -> list[str]:
    """The leaves of a stac-geoparquet file that are read, as `pyarrow.parquet` names them."""
    plain = {*_PROPERTIES, *BASELINE_KEYS, *NAME_KEYS, *TYPE_KEYS, *APPLIED_KEYS}
    names = [name for name in schema.names if name in plain]
    kind = schema.field("assets").type
    if not pa.types.is_struct(kind) or not all(pa.types.is_struct(asset.type) for asset in kind):
        return [*names, "assets"]
    for asset in kind:
        names += [f"assets.{asset.name}.{fact.name}" for fact in asset.type if fact.name == "href" or fact.name in _BAND_FACTS]
    return names


def scenes_from_columns(items: pa.Table, bands: tuple[str, ...], refused: dict[str, str]) -> pa.Table:
    """The scenes of a table of items, in any order; the same as `scene_table.scenes_of` of the items as JSON.

    Args:
        items: rows of stac-geoparquet, with `wanted_columns` at least.
        bands: required names.
        refused: receives the items that cannot be used, with the reason.
    """
    found: dict[str, str] = {}
    try:
        scenes = _by_columns(items, bands, found)
    except (pa.ArrowException, shapely.errors.ShapelyError, _OddValueError, LookupError, TypeError, ValueError, ArithmeticError):
        found = {}
        scenes = scene_table(usable_scenes(_rows(items), bands, found))
    refused |= found
    return scenes


class _OddValueError(Exception):
    """A value that only `usable_scenes` may judge."""


def _by_columns(items: pa.Table, bands: tuple[str, ...], refused: dict[str, str]) -> pa.Table:
    """See `scenes_from_columns`.

    Raises:
        _OddValueError: a value is not as STAC has it; so do the errors of Arrow and shapely.
    """
    columns = _Columns(items)
    if not _are_names(columns["id"].cast(pa.string())):
        raise _OddValueError("id")
    geometry = _footprints(columns["geometry"])
    baseline = _baseline(columns)
    problems: list[tuple[NDArray[np.bool_], str]] = [
        (_level_1(columns), LEVEL_1),
        (np.asarray(columns["datetime"].is_null()), NO_DATE),
        (np.asarray(geometry.is_null()), NO_FOOTPRINT),
    ]
    usable = np.ones(items.num_rows, bool)
    for wrong, reason in problems:
        _refuse(refused, columns["id"], usable & wrong, reason)
        usable &= ~wrong
    kinds = _combine([_codes(columns["assets"]), _codes(baseline), *(_codes(columns[key]) for key in APPLIED_KEYS)])
    facts: dict[str, pa.Array] = {
        "item_id": columns["id"].cast(pa.string()),
        "datetime": _moments(columns["datetime"]),
        "cloud_cover": _number(columns["eo:cloud_cover"]),
        "epsg": _epsg(columns),
        "processing_baseline": baseline,
        "geometry": geometry,
    }
    parts = [SCENES.empty_table()]
    for kind in np.unique(kinds[usable]).tolist():
        rows = np.flatnonzero(usable & (kinds == kind))
        try:
            parts.append(_readable(_of_one_kind(columns, facts, rows, baseline[int(rows[0])].as_py(), bands), refused))
        except ItemRefusedError as error:
            refused.update((item_id, str(error)) for item_id in facts["item_id"].take(rows).to_pylist())
    return pa.concat_tables(parts)


class _Columns:
    """Columns by name; a missing one is all null."""

    def __init__(self, items: pa.Table) -> None:
        self._items = items

    def __getitem__(self, name: str) -> Any:
        if name not in self._items.column_names:
            return pa.nulls(self._items.num_rows, pa.string())
        column = self._items[name].combine_chunks()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return column.storage if isinstance(column, pa.ExtensionArray) else column


def _of_one_kind(
    columns: _Columns, facts: dict[str, pa.Array], rows: Codes, baseline: str | None, bands: tuple[str, ...]
) -> pa.Table:
    """The scenes of rows with the same facts about their bands."""
    assets = columns["assets"]
    example = used_assets(_without_nulls(assets[int(rows[0])].as_py()))
    for key, asset in example.items():
        asset["href"] = f"\0{key}\0"
    properties = {key: columns[key][int(rows[0])].as_py() for key in APPLIED_KEYS}
    usual, exceptions, marked = read_assets(example, properties, baseline, bands, TEST_BANDS)
    files: dict[tuple[str, str], pa.Array] = {}
    for band, mark in marked.items():
        key, suffix = _MARK.fullmatch(mark).groups()  # pyright: ignore[reportOptionalMemberAccess]
        files[band, suffix or ""] = _text(pc.struct_field(assets, [key, "href"]).take(rows))
    count = len(rows)
    table = {name: column.take(rows) for name, column in facts.items()}
    table |= {name: pa.array(np.full(count, getattr(usual, name))) for name in ("scale", "offset")}
    table["nodata"] = pa.array([usual.nodata], pa.float64()).take(np.zeros(count, np.int64))
    table["radiometry"] = pa.array([exceptions_json(exceptions)], pa.string()).take(np.zeros(count, np.int64))
    table["hrefs"] = _packed(files)
    return pa.table([table[name] for name in SCENES.names], schema=SCENES)


def _readable(scenes: pa.Table, refused: dict[str, str]) -> pa.Table:
    """The scenes whose hrefs may be read; see `hrefs.href_problem`."""
    texts = scenes["hrefs"]
    schemes = [pc.count_substring_regex(texts, pattern) for pattern in (_ANY_SCHEME, _USUAL_SCHEME)]
    odd = pc.or_(pc.match_substring_regex(texts, _ODD_START), pc.not_equal(*schemes))
    if not pc.any(odd).as_py():
        return scenes
    kept = np.ones(scenes.num_rows, bool)
    for row in np.flatnonzero(np.asarray(odd)).tolist():
        problems = (href_problem(href, local=True) for href in unpack(scenes["hrefs"][row].as_py()).values())
        if (problem := next((one for one in problems if one is not None), None)) is not None:
            kept[row] = False
            refused[scenes["item_id"][row].as_py()] = problem
    return scenes.filter(pa.array(kept))


def _packed(files: dict[tuple[str, str], pa.Array]) -> pa.Array:
    """See `hrefs.pack`: (band, end of its href) → the rest of its href as JSON writes it, for all rows."""
    columns = list(files.values())
    rows = np.arange(len(columns[0]))
    web = np.logical_and.reduce([np.asarray(pc.match_substring(column, "://")) for column in columns])
    parts, left = [(rows[~web], _joined(files, _taken(columns, rows[~web])))], rows[web]
    for depth in DEPTHS:
        split = [pc.split_pattern(column, "/", max_splits=depth, reverse=True) for column in _taken(columns, left)]
        folders = [pc.list_element(column, 0) for column in split]
        rests = [pc.binary_join(pc.list_slice(column, 1), "/") for column in split]
        first = pc.binary_join_element_wise(folders[0], "", "/")
        shared = np.logical_and.reduce([np.asarray(pc.equal(folders[0], folder)) for folder in folders])
        shared &= np.asarray(pc.match_substring(first, "://"))
        chosen = np.flatnonzero(shared)
        parts.append((left[chosen], _joined(files, _taken(rests, chosen), first.take(chosen))))
        left = left[~shared]
    parts.append((left, _joined(files, _taken(columns, left))))
    order = np.argsort(np.concatenate([part for part, _ in parts]))
    return pa.concat_arrays([texts for _, texts in parts]).take(pa.array(order))


def _taken(columns: list[pa.Array], rows: Codes) -> list[pa.Array]:
    return [column.take(pa.array(rows)) for column in columns]


def _joined(files: dict[tuple[str, str], pa.Array], texts: list[pa.Array], folder: pa.Array | None = None) -> pa.Array:
    pieces: list[pa.Array | str] = ['{"":"', folder, '"'] if folder is not None else ["{"]
    for number, ((band, end), text) in enumerate(zip(files, texts, strict=True)):
        pieces += [f'{"," if number or folder is not None else ""}"{band}":"', text, f'{end}"']
    return pc.binary_join_element_wise(*pieces, "}", "")


def _text(hrefs: pa.Array) -> pa.Array:
    """As JSON writes them between quotes."""
    if not _are_names(hrefs):
        raise _OddValueError("href")
    if pc.all(pc.match_substring_regex(hrefs, _PLAIN_TEXT)).as_py():
        return hrefs.cast(pa.string())
    return pa.array([json.dumps(href)[1:-1] for href in hrefs.to_pylist()], pa.string())


def _codes(column: Any) -> Codes:
    """A number for each row, (N,): equal if the rows are equal, apart from what is not a fact of a band."""
    kind = column.type
    if pa.types.is_struct(kind):
        known = _codes(pc.is_valid(column))
        fields = zip(kind, column.flatten(), strict=True)
        # below `assets` every key counts, below an asset only the facts; a key and a fact differ in what they hold
        kept = [child for field, child in fields if field.name in _BAND_FACTS or pa.types.is_struct(field.type)]
        return _combine([known, *(_codes(child) for child in kept)])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        values, codes = _codes(column.flatten()), np.zeros(len(column), np.int64)
        starts = np.cumsum(np.maximum(lengths, 0)) - np.maximum(lengths, 0)
        for length in np.unique(lengths[lengths > 0]).tolist():
            rows = np.flatnonzero(lengths == length)
            codes[rows] = _combine(list(values[starts[rows][:, None] + np.arange(length)].T))
        return _combine([lengths, codes])
    return np.asarray(pc.dictionary_encode(column, null_encoding="encode").indices).astype(np.int64)


def _combine(parts: Sequence[Codes]) -> Codes:
    """One number per row, equal if all parts are equal."""
    codes = parts[0]
    for part in parts[1:]:
        if len(part) and part.min() != part.max():
            codes = np.unique(np.stack([codes, part]), axis=1, return_inverse=True)[1].reshape(-1)
    return codes


def _without_nulls(value: Any) -> Any:
    """A column holds null if the item has no value."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _baseline(columns: _Columns) -> pa.Array:
    """See `scene.processing_baseline`."""
    said = []
    for key in BASELINE_KEYS:
        column = columns[key].cast(pa.string())
        matches = pc.match_substring_regex(column, r"^\d\d\.\d\d$")
        said.append(pc.if_else(pc.fill_null(matches, False), column, pa.scalar(None, pa.string())))
    for name in (*NAME_KEYS, "id"):
        found = pc.extract_regex(columns[name].cast(pa.string()), r"_N(?P<major>\d{2})(?P<minor>\d{2})_")
        said.append(pc.binary_join_element_wise(pc.struct_field(found, "major"), pc.struct_field(found, "minor"), "."))
    return pc.coalesce(*said)


def _level_1(columns: _Columns) -> NDArray[np.bool_]:
    wrong = np.zeros(len(columns["id"]), bool)
    for key in TYPE_KEYS:
        wrong |= np.asarray(pc.is_in(columns[key].cast(pa.string()), pa.array(LEVEL_1_TYPES)))
    for name in ("id", "collection", *NAME_KEYS):
        named = pc.match_substring(columns[name].cast(pa.string()), "L1C", ignore_case=True)
        wrong |= np.asarray(pc.fill_null(named, False))
    return wrong


def _rows(items: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as STAC items (JSON)."""
    columns = {name: _Columns(items)[name] for name in items.column_names}
    for number in range(items.num_rows):
        row: dict[str, Any] = {}
        for name, column in columns.items():
            value = _value(column[number])
            if value is not None:
                row[name] = value
        item = {name: row.pop(name, None) for name in ("id", "collection", "geometry", "assets")}
        yield {**item, "geometry": _geojson(item["geometry"]), "properties": row}


def _value(cell: Any) -> Any:
    try:
        if pa.types.is_timestamp(cell.type):
            cell = cell.cast(pa.timestamp("us", cell.type.tz), safe=False)
        return _without_nulls(cell.as_py())
    except (pa.ArrowException, ValueError, OverflowError) as error:  # UTF-8 that is none, a year beyond 9999
        return f"unreadable ({type(error).__name__})"


def _geojson(geometry: Any) -> Any:
    if not isinstance(geometry, bytes):
        return geometry
    try:
        return shapely.geometry.mapping(shapely.from_wkb(geometry))
    except (shapely.errors.ShapelyError, ValueError):
        return {"type": "none"}


def _epsg(columns: _Columns) -> pa.Array:
    code = pc.extract_regex(columns["proj:code"].cast(pa.string()), r"(?i)^EPSG:(?P<number>\d{1,9})$")
    number = columns["proj:epsg"].cast(pa.int32())
    if pc.any(pc.less(number, 0)).as_py():
        raise _OddValueError("proj:epsg")
    return pc.coalesce(pc.struct_field(code, "number").cast(pa.int32()), number)


def _are_names(texts: pa.Array) -> bool:
    """Whether each is a text that `item_shape` takes for a name or an address."""
    texts = texts.cast(pa.string())
    good = pc.and_(pc.match_substring_regex(texts, _NAME), pc.less_equal(pc.utf8_length(texts), LONGEST))
    return texts.null_count == 0 and pc.all(good).as_py() is not False


def _moments(column: pa.Array) -> pa.Array:
    moments = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    extremes = pc.min_max(moments.cast(pa.int64()))
    if moments.null_count < len(moments) and not (extremes["min"].as_py() >= _FIRST and extremes["max"].as_py() < _END):
        raise _OddValueError("datetime")
    return moments


def _number(column: pa.Array) -> pa.Array:
    values = column.cast(pa.float64())
    if pc.any(pc.is_inf(values)).as_py():
        raise _OddValueError("eo:cloud_cover")
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def _footprints(column: pa.Array) -> pa.Array:
    """WKB unchanged, except for footprints across the antimeridian."""
    shapes = shapely.from_wkb(np.asarray(column.to_numpy(zero_copy_only=False), object))
    west, south, east, north = shapely.bounds(shapes).T
    with np.errstate(invalid="ignore"):
        odd = np.flatnonzero((east - west > 180) | (east > 180) | (west < -180)).tolist()
        placed = (west >= -540) & (east <= 540) & (south >= -91) & (north <= 91)
    if not (placed | shapely.is_missing(shapes)).all():
        raise _OddValueError("geometry")
    if not odd:
        return column.cast(pa.binary())
    texts = column.to_pylist()
    for row in odd:
        texts[row] = across_antimeridian(shapes[row]).wkb
    return pa.array(texts, pa.binary())


def _refuse(refused: dict[str, str], ids: pa.Array, wrong: NDArray[np.bool_], reason: str) -> None:
    refused.update((item_id, reason) for item_id in ids.filter(pa.array(wrong)).to_pylist())


def batches(path: Any, rows: int, spans: Sequence[Interval] | None = None) -> Iterator[pa.Table]:
    """The wanted columns of a stac-geoparquet file, in batches.

    Args:
        path: of the file.
        rows: of a batch, at most.
        spans: row groups without a date in any of them are skipped; None: all are read.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names, groups = wanted_columns(file.schema_arrow), range(file.metadata.num_row_groups)
        timely = [group for group in groups if spans is None or _may_hold(file.metadata.row_group(group), spans)]
        for batch in file.iter_batches(rows, row_groups=timely, columns=names):
            yield pa.Table.from_batches([batch])


def _may_hold(group: Any, spans: Sequence[Interval]) -> bool:
    """Whether the statistics of a row group allow a date in one of the half-open intervals."""
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema == "datetime" and column.is_stats_set and column.statistics.has_min_max:
            try:
                first, last = (_aware(moment) for moment in (column.statistics.min, column.statistics.max))
            except (AttributeError, ValueError, OverflowError):  # no dates: reported where the rows are read
                return True
            return any(first < end and start <= last for start, end in spans)
    return True


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
