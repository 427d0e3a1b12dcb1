"""Sets in the layout of SeCo and CACo: imported as their authors ship them, and a round trip through an export of ours."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, recorded
from caco_assets.imagery.archive.shard import INDEX, iter_chips, read_index, write_index
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.seco_layout.export_archive import export_published, export_tifs
from caco_assets.imagery.seco_layout.import_archive import import_published
from caco_assets.imagery.stage import collect
from caco_assets.sampling.stage import sample
from caco_assets.settings import SecoLayoutSource, Settings, load_settings

SIDE = 48
COARSE = {"B5": 2, "B1": 6}
"""Pixels of 20 m and 60 m: a half and a sixth of the side."""
BANDS = ("B04", "B03", "B02", "B05", "B01")
LON, LAT = 2.35, 48.85
DATES = tuple(f"{day}T105031_{day}T105033_T31UDQ" for day in ("20170105", "20170401", "20210105", "20210401"))


def profile(home: Path, **changes) -> Settings:
    """The tiny profile, its imagery imported; chips of 48 pixels, two dates per period."""
    source = {key: changes.pop(key) for key in ("periods", "scale", "offset", "nodata") if key in changes}
    base = {"bands": BANDS, "chip_size": SIDE, "seasons": 3, "min_seasons": 2, "workers": 2}
    settings = load_settings("tiny", home=home)
    imagery = settings.imagery.model_copy(update={**base, "source": SecoLayoutSource(**source), **changes})
    return settings.model_copy(update={"imagery": imagery})


def write_band(path: Path, pixels: np.ndarray, lon: float = LON, lat: float = LAT, **options) -> None:
    """A band as SeCo's downloader writes it: uint8, degrees without a code, the box of the patch."""
    side = SIDE * 10
    width, height = side / (111_320 * np.cos(np.radians(lat))), side / 111_320
    place = Affine(width / pixels.shape[1], 0, lon - width / 2, 0, -height / pixels.shape[0], lat + height / 2)
    profile = {"driver": "GTiff", "crs": "+proj=latlong", "transform": place, "dtype": pixels.dtype, "count": 1, **options}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as raster:
        raster.write(pixels, 1)


def band_pixels(seed: int, band: str) -> np.ndarray:
    side = SIDE // COARSE.get(band, 1)
    return np.random.default_rng((seed, *band.encode())).integers(0, 256, (side, side), dtype=np.uint8)


def write_set(root: Path, places: int = 2, **options) -> Path:
    """A set of the published layout: `places` places of four dates, two years and two years four years later."""
    for place in range(places):
        for number, date in enumerate(DATES):
            folder = root / f"{place:06d}" / date
            for band in ("B4", "B3", "B2", "B5", "B1"):
                write_band(folder / f"{band}.tif", band_pixels(10 * place + number, band), LON + 0.02 * place, **options)
            moment = datetime(2017 + 4 * (number // 2), 1 + 3 * (number % 2), 5, 10, 50, 31, tzinfo=UTC)
            metadata = {
                "system:time_start": int(moment.timestamp() * 1000) + 24,
                "CLOUDY_PIXEL_PERCENTAGE": 3.5,
                "system:index": date,
            }
            (folder / "metadata.json").write_text(json.dumps(metadata))
            # SeCo's 100k set has a preview beside each date
            (root / f"{place:06d}" / f"{date}.tif").write_bytes(b"preview")
    return root


def import_set(settings: Settings, root: Path) -> list[Product]:
    """As `caco archive import` does it."""
    products = import_published(settings, root)
    return [*products, collect(settings, products[1:])]


def refusals(settings: Settings) -> list[tuple]:
    rows = pq.read_table(settings.paths.quarantine).to_pylist()
    return [(row["location_id"], row["reason"], row["detail"]) for row in rows]


def test_a_published_set_becomes_an_archive_of_its_own_pixels(tmp_path):
    settings = profile(tmp_path / "home")
    products = import_set(settings, write_set(tmp_path / "set"))
    assert [product.name for product in products] == ["locations", "archive/shard=0000", "quarantine"]
    assert verify_archive(settings.paths.archive) == []
    chips = {(chip.location_id, chip.period, chip.season): chip for chip in iter_chips(settings.paths.archive)}
    assert sorted(chips) == [(f"L000000{place}", period, season) for place in (0, 1) for period in (0, 1) for season in (0, 1)]
    chip = chips["L0000001", 1, 0]
    # uint8 = reflectance × 255, as published; 0 is a dark pixel, not a missing one
    expected = np.maximum(np.rint(band_pixels(12, "B3") * (10_000 / 255)), 1)
    assert (chip.pixels[1] == expected).all()
    assert (chip.lon, chip.lat) == pytest.approx((LON + 0.02, LAT), abs=1e-6)
    assert refusals(settings) == []


def test_what_the_metadata_says_of_a_date_is_kept(tmp_path):
    settings = profile(tmp_path / "home")
    import_set(settings, write_set(tmp_path / "set", places=1))
    row = read_index(settings.paths.archive / "shard=0000").to_pylist()[3]
    assert row["datetime"] == datetime(2021, 4, 5, 10, 50, 31, 24_000, tzinfo=UTC)
    assert (row["item_id"], row["cloud_cover"], row["clear_fraction"], row["epsg"]) == (DATES[3], 3.5, 1.0, 32631)
    places = pq.read_table(settings.paths.locations).to_pylist()
    assert (places[0]["location_id"], places[0]["city"], places[0]["country"], places[0]["shard"]) == ("L0000000", "Paris", "FR", 0)


def test_published_numbers_come_through_the_published_stretch_unchanged():
    from caco_assets.pretraining.encoder.stretch import published_table, table

    stored = np.arange(256)
    archived = np.maximum(np.rint(stored * (10_000 / 255)), 1).astype(int)
    assert (table("seco", "B03")[archived] == published_table(2, 103)[stored]).all()


def test_coarser_bands_are_interpolated_between_the_centres_of_their_pixels(tmp_path):
    settings = profile(tmp_path / "home")
    import_set(settings, write_set(tmp_path / "set", places=1))
    chip = next(iter_chips(settings.paths.archive, ("B01",)))
    coarse = band_pixels(0, "B1") * (10_000 / 255)
    centres = np.clip((np.arange(SIDE) + 0.5) / 6 - 0.5, 0, SIDE // 6 - 1)
    slow = np.array([[_bilinear(coarse, y, x) for x in centres] for y in centres])
    assert np.abs(chip.pixels[0] - np.maximum(slow, 1)).max() <= 1


def _bilinear(grid: np.ndarray, y: float, x: float) -> float:
    top, left = min(int(y), len(grid) - 2), min(int(x), len(grid) - 2)
    rows = [grid[row, left] * (1 - (x - left)) + grid[row, left + 1] * (x - left) for row in (top, top + 1)]
    return rows[0] * (1 - (y - top)) + rows[1] * (y - top)


def test_files_compressed_as_jpeg_are_read(tmp_path):
    settings = profile(tmp_path / "home", bands=("B04", "B03", "B02"))
    import_set(settings, write_set(tmp_path / "set", places=1, compress="JPEG"))
    assert len(list(iter_chips(settings.paths.archive))) == 4


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def ones(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


def move(date: Path) -> None:
    for path in date.glob("B?.tif"):
        write_band(path, ones(SIDE), LON + 0.005)


def widen(date: Path) -> None:
    write_band(date / "B4.tif", ones(SIDE), transform=Affine(1, 0, 0, 0, -1, 60))


SPOILT = {
    "a band is missing": (lambda date: (date / "B3.tif").unlink(), "incomplete", "lacks B3.tif"),
    "a file is cut off": (lambda date: cut_off(date / "B4.tif"), "unreadable", "B4.tif: "),
    "a page of HTML": (lambda date: (date / "B4.tif").write_text("<html>busy</html>"), "error_page", "B4.tif: a page of HTML"),
    "another size": (lambda date: write_band(date / "B2.tif", ones(40)), "unreadable", "B2.tif has 40×40 pixels"),
    "another place": (move, "outside_footprint", "lies elsewhere than the newest date of its place"),
    "another chip size": (widen, "unreadable", "m, not 480: see imagery.chip_size"),
    "a broken metadata.json": (
        lambda date: (date / "metadata.json").write_text("{"),
        "incomplete",
        "its metadata.json is not JSON",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_place_with_a_spoilt_date_is_refused_with_the_reason_and_the_others_are_kept(tmp_path, kind):
    spoil, reason, detail = SPOILT[kind]
    settings, root = profile(tmp_path / "home"), write_set(tmp_path / "set")
    spoil(root / "000000" / DATES[0])
    import_set(settings, root)
    assert {chip.location_id for chip in iter_chips(settings.paths.archive)} == {"L0000001"}
    found = refusals(settings)
    assert [(place, why) for place, why, _ in found] == [("L0000000", reason), ("L0000000", "too_few_seasons")]
    assert detail in found[0][2]
    assert found[1][2] == "usable dates: 1 early, 2 late; at least 2 are needed in each period"
    assert str(tmp_path) not in found[0][2]


def test_a_folder_whose_name_holds_no_date_is_refused(tmp_path):
    settings, root = profile(tmp_path / "home"), write_set(tmp_path / "set")
    (root / "000000" / "notes").mkdir()
    (root / "000001" / "2019-13-01").mkdir()
    import_set(settings, root)
    found = refusals(settings)
    assert [(place, why) for place, why, _ in found] == [("L0000000", "incomplete"), ("L0000001", "incomplete")]
    assert "needs 20200715T105031 or 2020-07-15" in found[0][2]
    assert "2019-13-01" in found[1][2]


def test_surplus_dates_are_listed_and_not_lost_silently(tmp_path):
    settings = profile(tmp_path / "home", seasons=2)
    root = write_set(tmp_path / "set", places=1)
    for band in ("B4", "B3", "B2", "B5", "B1"):
        write_band(root / "000000" / "20161201T105031" / f"{band}.tif", band_pixels(99, band))
    import_set(settings, root)
    assert refusals(settings) == [("L0000000", "surplus", "not among the 2 newest dates of a period (rule gap)")]


def test_a_set_of_one_year_is_parted_in_halves_when_the_profile_says_so(tmp_path):
    root = write_set(tmp_path / "set", places=1)
    for date in DATES[:2]:
        newer = root / "000000" / date.replace("2017", "2020")
        (root / "000000" / date).rename(newer)
        (newer / "metadata.json").unlink()
    by_gap, by_halves = (profile(tmp_path / rule, periods=rule) for rule in ("gap", "halves"))
    with pytest.raises(UserError, match=r"not one chip of 1 places: 1 too_few_seasons; .*imagery\.source\.periods"):
        import_set(by_gap, root)
    assert refusals(by_gap) == [
        ("L0000000", "surplus", "not among the 3 newest dates of a period (rule gap)"),
        ("L0000000", "too_few_seasons", "usable dates: 0 early, 3 late; at least 2 are needed in each period"),
    ]
    import_set(by_halves, root)
    assert len(list(iter_chips(by_halves.paths.archive))) == 4


def test_a_second_import_reuses_every_shard_and_a_changed_file_only_costs_its_own(tmp_path):
    settings = profile(tmp_path / "home")
    settings = settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"places_per_shard": 1})})
    root = write_set(tmp_path / "set")
    first = import_set(settings, root)
    assert [product.reused for product in import_set(settings, root)] == [True] * 4
    write_band(root / "000001" / DATES[3] / "B4.tif", band_pixels(77, "B4"), LON + 0.02)
    again = import_set(settings, root)
    assert {product.name: product.reused for product in again} == {
        "locations": False, "archive/shard=0000": True, "archive/shard=0001": False, "quarantine": False,
    }  # fmt: skip
    assert again[0].content_hash == first[0].content_hash
    assert again[2].content_hash != first[2].content_hash


def test_numbers_keep_their_place_and_shard_when_others_are_absent(tmp_path):
    settings, root = profile(tmp_path / "home"), write_set(tmp_path / "set", places=1)
    (root / "000000").rename(root / "000013")
    import_set(settings, root)
    assert pq.read_table(settings.paths.locations)["location_id"].to_pylist() == ["L0000013"]
    assert recorded(settings.paths.records, "locations").facts["shards"] == 3
    assert verify_archive(settings.paths.archive) == []
    assert [chip.location_id for chip in iter_chips(settings.paths.archive)] == ["L0000013"] * 4


def test_bad_sets_and_profiles_are_one_clear_line(tmp_path):
    settings = profile(tmp_path / "home")
    with pytest.raises(UserError, match=r"absent: no such folder"):
        import_set(settings, tmp_path / "absent")
    with pytest.raises(UserError, match=r"no folder in it is named by a number"):
        import_set(settings, tmp_path)
    root = write_set(tmp_path / "set", places=1)
    with pytest.raises(UserError, match=r"imagery.source.kind=synthetic: this profile makes its own archive"):
        import_set(load_settings("tiny", home=tmp_path / "other"), root)
    (root / "0").mkdir()
    with pytest.raises(UserError, match=r"0 and 000000 are the same number"):
        import_set(settings, root)
    (root / "0").rmdir()
    with pytest.raises(UserError, match=r"none of the places has a date with a usable georeference"):
        import_set(profile(tmp_path / "large", chip_size=96), root)


@pytest.fixture
def ours(tmp_path, small_archive) -> tuple[Settings, Path]:
    """The small archive, and a profile that an export of it can be imported with."""
    return profile(tmp_path / "back", bands=("B02", "B03", "B04"), chip_size=32), small_archive


def test_an_archive_comes_back_bit_for_bit_from_an_export_in_the_published_layout(ours, tmp_path):
    settings, archive = ours
    assert export_published(archive, tmp_path / "out") == {"places": 2, "chips": 8}
    assert sorted(path.name for path in (tmp_path / "out" / "000012" / "20220401T103015").iterdir()) == [
        "B2.tif", "B3.tif", "B4.tif", "metadata.json",
    ]  # fmt: skip
    import_set(settings, tmp_path / "out")
    for shard, target in enumerate(("shard=0000", "shard=0002")):  # six places to a shard: 12 is in the third
        before, after = (read_index(path) for path in (archive / f"shard={shard:04d}", settings.paths.archive / target))
        assert before.to_pylist() == after.to_pylist(), "pixels (sha256), dates, places, footprints and what is known of the scene"
    assert verify_archive(settings.paths.archive) == []


def test_exported_tifs_are_the_archived_bytes(small_archive, tmp_path, pixels_of):
    export_tifs(small_archive, tmp_path / "loose")
    with rasterio.open(tmp_path / "loose" / "L0000012" / "p1s0.tif") as raster:
        assert (raster.read() == pixels_of(12)).all()
    assert len(list((tmp_path / "loose").rglob("*.tif"))) == 8


def test_uint8_is_reflectance_times_255_to_the_nearest(small_archive, tmp_path, pixels_of):
    export_published(small_archive, tmp_path / "out", "uint8")
    with rasterio.open(tmp_path / "out" / "000003" / "20180101T103015" / "B3.tif") as raster:
        found = raster.read(1)
        assert (raster.dtypes[0], raster.nodata) == ("uint8", None)
    assert (found == np.minimum(np.floor(pixels_of(0)[1].astype(int) * 255 / 10_000 + 0.5), 255)).all()


def test_an_index_that_leads_out_of_the_folder_writes_nothing_there(small_archive, tmp_path):
    shard = small_archive / "shard=0000"
    rows = [{**row, "location_id": "../../evil"} for row in pq.read_table(shard / INDEX).to_pylist()]
    import shapely

    write_index(shard / INDEX, [{**row, "geometry": shapely.from_wkb(row["geometry"])} for row in rows], ("B02", "B03", "B04"))
    with pytest.raises(UserError, match=r"leads out of the folder"):
        export_tifs(small_archive, tmp_path / "a" / "b" / "out")
    with pytest.raises(UserError, match=r"names a place by its number"):
        export_published(small_archive, tmp_path / "a" / "b" / "out")
    assert not list(tmp_path.rglob("*evil*"))


def test_an_export_of_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"the archive is empty; ingest it first"):
        export_tifs(tmp_path / "absent", tmp_path / "out")


def test_an_imported_archive_is_not_ingested_over(tmp_path):
    from caco_assets.imagery.on_record import ingest_shard, plan

    settings = profile(tmp_path / "home")
    made = import_set(settings, write_set(tmp_path / "set", places=1))
    with pytest.raises(UserError, match=r"an imported archive has no scenes to choose; continue with `caco pack`"):
        plan(settings)
    assert ingest_shard(settings, 0).content_hash == made[1].content_hash


def test_imported_chips_are_stac_items(tmp_path, stac_items):
    settings = profile(tmp_path / "home")
    import_set(settings, write_set(tmp_path / "set", places=1))
    (item, *_) = stac_items(settings.paths.archive / "shard=0000")
    assert item["id"] == "L0000000-p0s0"


@pytest.mark.slow
def test_an_imported_set_is_packed_and_trained_on(tmp_path):
    from caco_assets.pretraining.on_record import archive_shards, training_inputs
    from caco_assets.pretraining.stage import build_pack, pretrain

    settings = profile(tmp_path / "home")
    training = settings.pretraining.model_copy(
        update={"bands": ("B04", "B03", "B02"), "batch_size": 4, "epochs": 1, "objective": "seco"}
    )
    settings = settings.model_copy(update={"pretraining": training})
    import_set(settings, write_set(tmp_path / "set", places=4))
    assert build_pack(settings, archive_shards(settings)).facts["places"] == 4
    assert (pretrain(settings, training_inputs(settings)).path / "encoder.safetensors").exists()


@pytest.mark.slow
def test_the_peers_loader_reads_an_export(small_archive, tmp_path, pixels_of):
    """torchgeo's data set of SeCo, on our export under the name it looks for."""
    from torchgeo.datasets import SeasonalContrastS2

    export_published(small_archive, tmp_path / "seasonal_contrast_100k", "uint8")
    image = SeasonalContrastS2(str(tmp_path), bands=("B4", "B3", "B2"), seasons=1)[3]["image"]
    assert tuple(image.shape) == (3, 264, 264)
    assert 0 <= float(image.min()) <= float(image.max()) <= 255


def test_the_places_of_an_imported_set_are_not_drawn_over(tmp_path):
    settings = profile(tmp_path / "home")
    with pytest.raises(UserError, match="locations: not made yet"):
        sample(settings)
    import_set(settings, write_set(tmp_path / "set"))
    before = settings.paths.locations.read_bytes()
    assert sample(settings).reused
    assert settings.paths.locations.read_bytes() == before
