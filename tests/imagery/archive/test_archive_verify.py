"""`verify_archive`: each way in which an archive can be spoilt is named, with its shard and chip."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caco_assets.imagery.archive.chip import encode
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, TAR, read_index, write_tar
from caco_assets.imagery.archive.verify import is_safe_member, verify_archive
from caco_assets.imagery.geometry.chip_grid import Grid, chip_footprints, chip_grids

BANDS = ("B02", "B03", "B04")


def damage(archive: Path, shards: int | None = None, workers: int = 2) -> list[str]:
    return [str(one) for one in verify_archive(archive, shards, workers)]


def rewrite(shard: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    """Write the index of a shard again with other rows."""
    table = pq.read_table(shard / INDEX)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), shard / INDEX)


def replace_chip(shard: Path, number: int, data: bytes, **columns) -> None:
    """Put other bytes in the place of a chip, tar and index in agreement."""
    rows = read_index(shard).to_pylist()
    whole = (shard / TAR).read_bytes()
    chips = [whole[row["offset"] : row["offset"] + row["length"]] for row in rows]
    chips[number] = data
    names = [f"{row['location_id']}/p{row['period']}s{row['season']}.tif" for row in rows]
    ranges = write_tar(shard / TAR, zip(names, chips, strict=True))
    for row, (offset, length, sha256) in zip(rows, ranges, strict=True):
        row |= {"offset": offset, "length": length, "sha256": sha256}
    rows[number] |= columns
    rewrite(shard, lambda _: rows)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_a_sound_archive_has_no_damage_whatever_the_number_of_workers(small_archive):
    assert damage(small_archive, shards=2, workers=1) == damage(small_archive, workers=3) == []


def test_a_changed_byte_names_shard_and_chip(small_archive):
    shard = small_archive / "shard=0000"
    row = read_index(shard).to_pylist()[2]
    overwrite(shard / TAR, row["offset"] + row["length"] // 2, b"\xff\x00\xff")
    assert damage(small_archive) == ["shard=0000: L0000003-p1s0 is not what its index says (sha256)"]


def test_missing_files_missing_shards_and_strays_are_named(small_archive):
    (small_archive / "shard=0000" / TAR).unlink()
    (small_archive / "shard=0000" / "chips.aux.xml").write_text("")
    (small_archive / "notes.txt").write_text("")
    (small_archive / ".shard=0005.partial-0123").mkdir()  # an interrupted ingest's, not a stray
    shutil.rmtree(small_archive / "shard=0001")
    assert damage(small_archive, shards=2) == [
        "archive: notes.txt does not belong here",
        "shard=0000: chips.tar is missing",
        "shard=0000: chips.aux.xml does not belong here",
        "shard=0001: is missing",
    ]


def test_a_shard_beyond_the_last_is_named(small_archive):
    assert damage(small_archive, shards=1) == ["shard=0001: is beyond the last of 1 shards"]


def test_an_index_or_quarantine_that_is_no_parquet_is_named(small_archive):
    (small_archive / "shard=0000" / INDEX).write_bytes(b"")
    (small_archive / "shard=0001" / QUARANTINE).write_bytes(b"PAR1 nonsense PAR1")
    first, second = damage(small_archive)
    assert first.startswith("shard=0000: chips.parquet cannot be read")
    assert second.startswith("shard=0001: quarantine.parquet cannot be read")


def test_a_truncated_tar_names_every_chip_behind_the_cut(small_archive):
    shard = small_archive / "shard=0001"
    rows = read_index(shard).to_pylist()
    (shard / TAR).write_bytes((shard / TAR).read_bytes()[: rows[2]["offset"] + 10])
    found = damage(small_archive)
    assert any("L0000012-p1s0 is cut short: 10 of" in line for line in found)
    assert any("L0000012-p1s2 is cut short: 0 of" in line for line in found)
    assert any("L0000012-p1s2 is not in chips.tar" in line for line in found)


def test_a_damaged_tar_header_is_named_though_the_chips_bytes_are_sound(small_archive):
    shard = small_archive / "shard=0001"
    overwrite(shard / TAR, read_index(shard).to_pylist()[1]["offset"] - tarfile.BLOCKSIZE, b"\xff" * 100)
    found = damage(small_archive)
    assert all(line.startswith("shard=0001: ") for line in found)
    assert any("L0000012-p0s2 is not in chips.tar" in line for line in found)


def test_an_index_that_disagrees_with_the_tar_is_named(small_archive):
    shard = small_archive / "shard=0000"

    def shift(rows):
        rows[1]["offset"] += 512
        return rows

    rewrite(shard, shift)
    found = damage(small_archive)
    assert any("L0000003-p0s2 is at bytes" in line and "of chips.tar, not at" in line for line in found)
    assert any("L0000003-p0s2 is not what its index says" in line for line in found)


def test_rows_that_are_missing_doubled_or_out_of_order_are_named(small_archive):
    rewrite(small_archive / "shard=0000", lambda rows: [rows[1], rows[0], rows[0], rows[2]])
    found = damage(small_archive)
    assert "shard=0000: chips.parquet is not in the order of place, period, season" in found
    assert "shard=0000: L0000003-p0s0 is listed twice" in found
    assert "shard=0000: chips.tar holds L0000003/p1s2.tif, which the index does not list" in found


def test_a_member_or_an_index_that_leads_out_of_the_archive_is_named(small_archive):
    shard = small_archive / "shard=0000"
    with tarfile.open(shard / TAR, "a") as tar:
        header = tarfile.TarInfo("../../escape.tif")
        header.size = 3
        tar.addfile(header, io.BytesIO(b"bad"))
    rewrite(small_archive / "shard=0001", lambda rows: [{**row, "location_id": "../../L0000012"} for row in rows])
    found = damage(small_archive)
    assert "shard=0000: chips.tar holds '../../escape.tif', which is no chip" in found
    assert "shard=0001: L0000012-p0s0 has a name that leads out of the archive" in found


@pytest.mark.parametrize(
    ("name", "safe"),
    [("L1/p0s0.tif", True), ("a", True), ("", False), ("/etc/passwd", False), ("a/../../b", False), ("..", False), ("a\\b", False)],
)
def test_a_path_is_safe_when_it_stays_below_its_folder(name, safe):
    assert is_safe_member(name) is safe


def one_grid(size: int = 32, east: float = 0.0) -> Grid:
    return chip_grids(np.array([2.8 + east]), np.array([42.3]), size, 10.0)[0]


def spoilt_chips(pixels_of) -> dict[str, tuple[bytes, dict, str]]:
    grid, elsewhere = one_grid(), one_grid(east=0.01)
    there = {"geometry": chip_footprints([elsewhere])[0].wkb}
    larger = np.zeros((3, 64, 64), np.uint16)
    return {
        "no GeoTIFF": (b"<html>not a picture</html>", {}, "is no GeoTIFF"),
        "other bands": (encode(pixels_of(1), ("B02", "B03", "B08"), grid), {}, "has the bands B02, B03, B08, its index says B02"),
        "another zone": (encode(pixels_of(1), BANDS, grid), {"epsg": 32630}, "is in EPSG:32631, its index says EPSG:32630"),
        "another place": (encode(pixels_of(1), BANDS, elsewhere), {}, "lies elsewhere than the footprint of its index"),
        "another grid": (encode(pixels_of(1), BANDS, elsewhere), there, "lies on another grid than the other dates of L0000003"),
        "another size": (
            encode(larger, BANDS, one_grid(64)), {"geometry": chip_footprints([one_grid(64)])[0].wkb}, "another grid",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["no GeoTIFF", "other bands", "another zone", "another place", "another grid", "another size"])
def test_a_chip_with_the_right_checksum_that_is_not_what_it_should_be_is_named(small_archive, pixels_of, kind):
    data, columns, expected = spoilt_chips(pixels_of)[kind]
    replace_chip(small_archive / "shard=0000", 3, data, **columns)
    (line,) = damage(small_archive)
    assert line.startswith("shard=0000: L0000003-p1s2 ")
    assert expected in line


def test_a_shard_of_another_chip_size_is_named(small_archive):
    grid = one_grid(64)
    for number in range(4):
        data = encode(np.full((3, 64, 64), 7, np.uint16), BANDS, grid)
        replace_chip(small_archive / "shard=0001", number, data, geometry=chip_footprints([grid])[0].wkb)
    found = damage(small_archive)
    assert len(found) == 4
    assert found[0] == ("shard=0001: L0000012-p0s0 has 3 bands of 64 pixels of 10 m; L0000003-p0s0 has 3 of 32 of 10 m")
