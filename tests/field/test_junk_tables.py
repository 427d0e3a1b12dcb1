"""Tables of the chain that are cut, damaged, of another kind, or folders: each is one line that names the file."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import count_rows, read_parquet
from caco_assets.imagery.archive.listing import list_chips, list_refusals, list_shards
from caco_assets.imagery.archive.reader import ArchiveReader
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, iter_chips, read_index
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.on_record import ingest_shard, plan, plan_again_if_changed
from caco_assets.imagery.planning.scenes_parquet import SCHEMA, read_scenes

ZEROS = b"PAR1" + bytes(60) + b"PAR1"
LONG = b"PAR1" + bytes(20) + (0x7FFFFFF0).to_bytes(4, "little") + b"PAR1"
JUNK = {
    "empty": b"",
    "text": b"{}",
    "zeros between its marks": ZEROS,
    "a footer longer than the file": LONG,
    "a mark alone": b"PAR1",
}


def spoil(file: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    whole = file.read_bytes()
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "another table":
        pq.write_table(pa.table({"a": [1]}), file)
    elif kind == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "other types":
        table = pq.read_table(pa.BufferReader(whole))
        names = [name for name in table.column_names if pa.types.is_primitive(table.schema.field(name).type)]
        for name in names:
            texts = pa.array(["x"] * table.num_rows)
            table = table.set_column(table.column_names.index(name), name, texts)
        pq.write_table(table, file)
    elif kind != "missing":
        file.write_bytes(JUNK[kind])


KINDS = [*JUNK, "a folder", "another table", "cut", "other types", "missing"]


def one_line(error: UserError, file: str) -> None:
    assert file in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_index_of_a_shard_is_one_line_wherever_it_is_read(small_archive, kind):
    shard = small_archive / "shard=0000"
    spoil(shard / INDEX, kind)
    readers = [lambda: read_index(shard), lambda: ArchiveReader(small_archive).read("L0000003", 0, 0, shard=0)]
    if kind != "missing":  # a folder without an index is no shard
        readers += [
            lambda: list_shards(small_archive),
            lambda: list_chips(small_archive, 0),
            lambda: list(iter_chips(small_archive)),
        ]
    for read in readers:
        if kind == "other types" and read is readers[1]:
            continue  # it reads six columns, whose values are checked with the chip's checksum
        with pytest.raises(UserError) as caught:
            read()
        one_line(caught.value, INDEX)
    found = verify_archive(small_archive, workers=1)
    assert {problem.shard for problem in found} == {"shard=0000"}
    assert any(INDEX in problem.what for problem in found)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_refusals_of_a_shard_are_one_line(small_archive, kind):
    spoil(small_archive / "shard=0000" / QUARANTINE, "another table" if kind == "other types" else kind)
    for read in (lambda: list_shards(small_archive), lambda: list_refusals(small_archive)):
        with pytest.raises(UserError) as caught:
            read()
        one_line(caught.value, QUARANTINE)
    if kind not in ("other types", "another table"):
        assert any(QUARANTINE in problem.what for problem in verify_archive(small_archive, workers=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_list_of_scenes_is_one_line_and_planned_again(six_dates, kind):
    plan(six_dates)
    whole = six_dates.paths.scenes.read_bytes()
    spoil(six_dates.paths.scenes, kind)
    for read in (lambda: read_scenes(six_dates.paths.scenes, 0), lambda: ingest_shard(six_dates, 0)):
        with pytest.raises(UserError) as caught:
            read()
        one_line(caught.value, "scenes.parquet")
    plan_again_if_changed(six_dates)
    assert six_dates.paths.scenes.read_bytes() == whole


@pytest.mark.parametrize("kind", [*JUNK, "another table", "cut"])
def test_a_spoilt_index_of_a_catalog_is_one_line(tiny_earth, kind):
    tiny_earth.scene("2022-04-05")
    folder = tiny_earth.write()
    spoil(folder / "items.parquet", kind)
    with pytest.raises(UserError, match="not readable as stac-geoparquet") as caught:
        StaticCatalog.open(folder, ("B02",))
    one_line(caught.value, "items.parquet")


@pytest.fixture(scope="module")
def scenes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of scenes of three hundred rows."""
    file = tmp_path_factory.mktemp("scenes") / "scenes.parquet"
    columns = {field.name: [None] * 300 for field in SCHEMA}
    columns |= {"location_id": [f"L{n:07d}" for n in range(300)], "shard": [n % 3 for n in range(300)], "hrefs": ["{}"] * 300}
    pq.write_table(pa.table(columns, schema=SCHEMA), file, compression="zstd")
    return file


@given(st.data())
def test_whatever_bytes_are_damaged_a_table_is_read_or_one_line(scenes_file, tmp_path_factory, data):
    whole = bytearray(scenes_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "scenes.parquet"
    file.write_bytes(bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))]))
    for read in (read_scenes, count_rows, read_parquet):
        try:
            read(file)
        except UserError as error:
            found = str(error)
        else:
            found = str(file)
        assert str(file) in found
        assert "\n" not in found
    shutil.rmtree(file.parent)


def test_a_table_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": np.arange(3)}), tmp_path / "a.parquet")

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "read_table", refuse)
    with pytest.raises(UserError, match=r"a\.parquet: not readable as Parquet \(.*Permission denied"):
        read_parquet(tmp_path / "a.parquet")
