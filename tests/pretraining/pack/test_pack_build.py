"""The pack: chips in, exact bytes out, damage noticed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash
from caco_assets.pretraining.encoder.stretch import table
from caco_assets.pretraining.pack import build as pack_module
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.pack.format import Pack

ARCHIVE_BANDS = ("B02", "B03", "B04", "B08")
BANDS = ("B04", "B03", "B02")
SIDE, SEASONS = 8, 3


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def chip(place: int, period: int, season: int) -> Chip:
    generator = np.random.default_rng((place, period, season))
    pixels = generator.integers(0, 12_000, (len(ARCHIVE_BANDS), SIDE, SIDE), dtype=np.uint16)
    return Chip(f"L{place:07d}", period, season, 0.5 * place, -0.25 * place, pixels)


def chips(missing: frozenset[tuple[int, int, int]] = frozenset(), places: int = 4) -> Iterator[Chip]:
    for place in range(places):
        for period in range(2):
            for season in range(SEASONS):
                if (place, period, season) not in missing:
                    yield chip(place, period, season)


def make(target: Path, source: Iterator[Chip] | None = None, **changes: object) -> dict:
    arguments = {
        "bands": BANDS,
        "archive_bands": ARCHIVE_BANDS,
        "stretch": "seco",
        "chip_size": SIDE,
        "seasons": SEASONS,
        "min_seasons": 2,
        "total": 24,
    }
    return build(chips() if source is None else source, target, **{**arguments, **changes})


def test_every_date_is_stretched_into_its_place(tmp_path: Path):
    facts = make(tmp_path / "pack")
    pack = Pack.open(tmp_path / "pack", verify=True)
    assert (pack.count, pack.bands, pack.chip_size, pack.seasons) == (4, BANDS, SIDE, SEASONS)
    for place in range(4):
        for period in range(2):
            for season in range(SEASONS):
                expected = [table("seco", band)[chip(place, period, season).pixels[ARCHIVE_BANDS.index(band)]] for band in BANDS]
                assert np.array_equal(pack.image(place, period, season), np.stack(expected, axis=-1))
    assert pack.valid.all()
    assert pack.lonlat[3].tolist() == [1.5, -0.75]
    assert facts["places"] == 4
    assert facts["dates"] == 24


def test_a_missing_date_is_not_valid_and_places_with_too_few_are_left_out(tmp_path: Path):
    missing = frozenset({(0, 1, 2), (2, 0, 0), (2, 0, 1)})
    facts = make(tmp_path / "pack", chips(missing))
    pack = Pack.open(tmp_path / "pack")
    assert pack.location_id == ("L0000000", "L0000001", "L0000003")
    assert (facts["places"], facts["places_left_out"]) == (3, 1)
    assert pack.valid[0].tolist() == [[True] * 3, [True, True, False]]
    assert pack.image(0, 1, 2).max() == 0
    row = pq.read_table(tmp_path / "pack" / "pack.parquet").to_pylist()[0]
    assert row["valid"] == [True, True, True, True, True, False]


def test_the_same_chips_give_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        make(tmp_path / name)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")


def test_a_half_made_pack_is_started_again(tmp_path: Path):
    make(tmp_path / "whole")

    def interrupted() -> Iterator[Chip]:
        yield from list(chips())[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "pack", interrupted())
    make(tmp_path / "pack")
    assert content_hash(tmp_path / "pack") == content_hash(tmp_path / "whole")


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path / "one")
    monkeypatch.setattr(pack_module, "FILE_BYTES", 2 * SEASONS * SIDE * SIDE * len(BANDS) * 3)
    make(tmp_path / "two")
    assert sorted(file.name for file in (tmp_path / "two").glob("*.npy")) == ["images-0000.npy", "images-0001.npy"]
    one, two = Pack.open(tmp_path / "one"), Pack.open(tmp_path / "two", verify=True)
    assert [len(array) for array in two.images] == [3, 1]
    assert all(np.array_equal(one.image(place, 1, 0), two.image(place, 1, 0)) for place in range(4))


def test_images_are_plain_npy_files(tmp_path: Path):
    make(tmp_path / "pack")
    assert np.load(tmp_path / "pack" / "images-0000.npy").shape == (4, 2, SEASONS, SIDE, SIDE, 3)


def test_no_place_with_enough_dates_says_what_to_do(tmp_path: Path):
    missing = frozenset((place, 0, season) for place in range(4) for season in range(2))
    with pytest.raises(UserError, match="min_seasons=2: none of the archive's 4 places"):
        make(tmp_path / "pack", chips(missing))


def test_a_band_the_archive_lacks_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"pretraining.bands: the archive has no B11"):
        make(tmp_path / "pack", bands=("B04", "B11"))
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([chip(1, 0, 0), chip(0, 0, 0)], "L0000000 comes after L0000001"),
        ([chip(0, 0, 0), chip(0, 0, 0)], "L0000000/p0s0 is there twice"),
        ([chip(0, 0, SEASONS)], "L0000000/p0s3 is there twice, or is not one of"),
        ([replace(chip(0, 1, 0), pixels=np.zeros((4, 8, 7), np.uint16))], r"L0000000/p1s0 is uint16 \(4, 8, 7\)"),
        ([replace(chip(0, 1, 0), pixels=np.zeros((4, 8, 8), np.float32))], r"L0000000/p1s0 is float32"),
    ],
)
def test_an_archive_that_is_not_as_said_stops_the_build(tmp_path: Path, source: list[Chip], message: str):
    with pytest.raises(UserError, match=message):
        make(tmp_path / "pack", iter(source))


def truncate(folder: Path) -> None:
    file = folder / "images-0000.npy"
    file.write_bytes(file.read_bytes()[:-100])


def remove_images(folder: Path) -> None:
    (folder / "images-0000.npy").unlink()


def remove_table(folder: Path) -> None:
    (folder / "pack.parquet").unlink()


def edit(key: str, value: object):
    def change(folder: Path) -> None:
        fields = json.loads((folder / "pack.json").read_text())
        (folder / "pack.json").write_text(json.dumps({**fields, key: value}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        remove_images,
        remove_table,
        edit("bands", ["B04"]),
        edit("count", 5),
        edit("seasons", 4),
        edit("files", []),
        edit("stretch_table_sha256", "0"),
        lambda folder: (folder / "pack.json").write_text("{"),
    ],
)
def test_a_damaged_pack_is_refused(tmp_path: Path, damage):
    make(tmp_path / "pack")
    damage(tmp_path / "pack")
    with pytest.raises(UserError, match=r"the pack is damaged .* build it again"):
        Pack.open(tmp_path / "pack")


def test_a_changed_byte_is_found_when_asked_to_verify(tmp_path: Path):
    make(tmp_path / "pack")
    file = tmp_path / "pack" / "images-0000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    Pack.open(tmp_path / "pack")
    with pytest.raises(UserError, match=r"images-0000\.npy has other bytes than when it was written"):
        Pack.open(tmp_path / "pack", verify=True)


def test_no_pack_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(UserError, match="no pack here"):
        Pack.open(tmp_path)
