"""Every expectation can fail: for each one a break of an otherwise valid product, and the row that the message must name."""

from __future__ import annotations

import json
from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point, box

from caco_assets.validation import stage
from caco_assets.validation.stage import PRODUCTS, validate

Break = Callable[..., object]


def put(frame, row, column, value):
    """Set one value, whatever the column's type was."""
    frame[column] = frame[column].astype(object)
    frame.at[row, column] = value


def drop(name, keep):
    """Keep only some rows of one of the world's tables."""

    def call(world):
        frame = getattr(world, name)
        setattr(world, name, frame[keep(frame)].reset_index(drop=True))

    return call


def set_(name, column, value, row=1):
    return lambda world: put(getattr(world, name), row, column, value)


def all_(name, column, value):
    """Set a value in every row."""
    return lambda world: getattr(world, name).__setitem__(column, value)


def chips_column(column, value, row=1):
    """Set one value of the first shard's finished `chips.parquet`."""

    def edit(frame):
        if frame["location_id"].iloc[0] == "L0000000":
            put(frame, row, column, value(frame) if callable(value) else value)
        return frame

    return lambda world: world.on_chips.append(edit)


def pixels(change, chip="L0000000/p0s1"):
    def call(world):
        world.pixels[chip] = change(world.pixels[chip].astype(np.int64)).astype(np.uint16)

    return call


def profile(chip="L0000000/p0s1", **overrides):
    return lambda world: world.profile.__setitem__(chip, overrides)


def band_to(value, band=0):
    def change(array):
        array[band] = value
        return array

    return change


def late_period_plus_1000(world):
    for name in world.pixels:
        if "/p1" in name:
            world.pixels[name] = world.pixels[name] + np.uint16(1000)


def no_shard_1(world):
    world.after.append(lambda: (world.settings.paths.archive / "shard=0001" / "chips.tar").unlink())


def garbage_in_tar(world):
    def call():
        tar = world.settings.paths.archive / "shard=0000" / "chips.tar"
        data = bytearray(tar.read_bytes())
        data[512:600] = b"x" * 88
        tar.write_bytes(bytes(data))

    world.after.append(call)


def empty_locations(world):
    drop("locations", lambda frame: frame["lon"] > 999)(world)


def nothing_archived(world):
    def edit(frame):
        return frame.iloc[:0]

    world.on_chips.append(edit)


def second_grid(world):
    put(world.chips, 2, "epsg", 32632)
    world.profile["L0000000/p0s2"] = {"crs": "EPSG:32632"}


def fewer_dates(world):
    drop("chips", lambda frame: frame["id"] != "L0000000/p0s1")(world)


def lost_without_reason(world):
    drop("chips", lambda frame: frame["id"] != "L0000003/p0s1")(world)


def lost_place(world):
    drop("chips", lambda frame: frame["location_id"] != "L0000003")(world)


def half_lost(world):
    drop("chips", lambda frame: frame["location_id"] < "L0000005")(world)


def about(**values):
    return lambda world: world.about.update(values)


def dead_image(world):
    world.arrays["images-0000.npy"][3, 1, 2] = 17


def no_arrays(world):
    world.about.update(files=[])


def flood(value):
    def call(world):
        for array in world.arrays.values():
            array[..., 1][array[..., 1] < 200] = value

    return call


def unreadable_array(world):
    world.after.append(lambda: (world.settings.paths.pack / "images-0001.npy").write_bytes(b"not an array"))


def narrower_array(world):
    world.arrays["images-0001.npy"] = world.arrays["images-0001.npy"][..., :2]


def as_float(world):
    world.arrays["images-0000.npy"] = world.arrays["images-0000.npy"].astype(np.float32)


def below_random(world):
    world.scores.loc[world.scores["encoder"] == "caco", ["value", "ci_low", "ci_high"]] = (0.51, 0.50, 0.52)


def repeat_score(world):
    world.scores = pd.concat([world.scores.iloc[:1], world.scores], ignore_index=True)


def moved_point(world):
    world.points = [Point(xy) for xy in zip(world.locations["lon"], world.locations["lat"], strict=True)]
    world.points[4] = Point(2.5, 48.9)


def moved_to_sea(world):
    put(world.locations, 2, "lon", -30.0)


def too_close(world):
    put(world.locations, 3, "lon", world.locations["lon"][2] + 0.001)


def shuffled(world):
    world.locations = world.locations.iloc[[1, 0, *range(2, 12)]].reset_index(drop=True)


def outside_region(world):
    narrow = world.settings.sampling.model_copy(update={"region": (2.0, 48.0, 2.35, 49.0)})
    world.settings = world.settings.model_copy(update={"sampling": narrow})


def put_a_test_set_under_a_place(world):
    path = world.settings.home / "test_set.geojson"
    lon, lat = world.locations["lon"][3], world.locations["lat"][3]
    gpd.GeoSeries([box(lon, lat, lon + 1e-3, lat + 1e-3)], crs=4326).to_file(path, driver="GeoJSON")
    zone = world.settings.sampling.model_copy(update={"exclude": (path,)})
    world.settings = world.settings.model_copy(update={"sampling": zone})


def other_crs(world):
    world.crs = "EPSG:4258"


BREAKS: dict[str, tuple[Break, str]] = {
    # --- locations
    "locations.some": (empty_locations, "observed: 0"),
    "locations.all_found": (drop("locations", lambda frame: frame["lat"] < 48.88), "observed: 8"),
    "locations.complete": (set_("locations", "city", None), "L0000001 = city"),
    "locations.crs": (other_crs, "EPSG:4258"),
    "locations.id_format": (set_("locations", "location_id", "place-1"), "place-1"),
    "locations.id_unique": (set_("locations", "location_id", "L0000000"), "L0000000"),
    "locations.in_order": (shuffled, "L0000001 = 1"),
    "locations.lon_on_earth": (set_("locations", "lon", 182.36), "L0000001 = 182.36"),
    "locations.lat_on_earth": (set_("locations", "lat", -91.0), "L0000001 = -91"),
    "locations.geometry_agrees": (moved_point, "L0000004 = 0.2"),
    "locations.on_land": (moved_to_sea, "L0000002 = False"),
    "locations.inside_region": (outside_region, "L0000003 = False"),
    "locations.outside_zones": (put_a_test_set_under_a_place, "not so for 1 of 12: L0000003 = False"),
    "locations.apart": (too_close, "L0000003 = 0.07"),
    "locations.shard_numbering": (set_("locations", "shard", 1), "L0000001 = 1"),
    "locations.near_its_city": (set_("locations", "distance_km", 7.5), "L0000001 = 7.5"),
    "locations.population": (set_("locations", "population", -1), "L0000001 = -1"),
    "locations.country_code": (set_("locations", "country", "France"), "L0000001 = France"),
    # --- scenes
    "scenes.some": (drop("scenes", lambda frame: frame["rank"] > 9), "observed: 0"),
    "scenes.complete": (set_("scenes", "item_id", None), "L0000000/p0s0r1 = item_id"),
    "scenes.place_known": (set_("scenes", "location_id", "L0000099"), "L0000099/p0s0r1 = False"),
    "scenes.period": (set_("scenes", "period", 2), "L0000000/p2s0r1 = 2"),
    "scenes.season": (set_("scenes", "season", 3), "L0000000/p0s3r1 = 3"),
    "scenes.status": (set_("scenes", "status", "guessed"), "L0000000/p0s0r1 = guessed"),
    "scenes.one_row": (set_("scenes", "rank", 0), "L0000000/p0s0r0"),
    "scenes.in_period": (set_("scenes", "datetime", pd.Timestamp("2024-03-01", tz="UTC")), "L0000000/p0s0r1"),
    "scenes.in_season": (set_("scenes", "datetime", pd.Timestamp("2022-09-01", tz="UTC")), "L0000000/p0s0r1"),
    "scenes.cloud_cover": (set_("scenes", "cloud_cover", -4.0), "L0000000/p0s0r1 = -4"),
    "scenes.cloud_limit": (set_("scenes", "cloud_cover", 95.0), "L0000000/p0s0r1 = 95"),
    "scenes.scale_known": (set_("scenes", "scale", 1.0), "L0000000/p0s0r1 = 1"),
    "scenes.offset_known": (set_("scenes", "offset", -0.7), "L0000000/p0s0r1 = -0.7"),
    "scenes.offset_applied": (set_("scenes", "offset", 0.0, row=11), "L0000000/p1s2r1 = no offset"),
    "scenes.bands": (set_("scenes", "hrefs", json.dumps({"B02": "a", "B03": "b", "B08": "c"})), "L0000000/p0s0r1 = B04"),
    "scenes.places.dates_listed": (drop("scenes", lambda f: (f["location_id"] != "L0000000") | (f["season"] != 1)), "p0s1,p1s1"),
    "scenes.places.ranks": (set_("scenes", "rank", 4), "L0000000 = p0s0"),
    "scenes.places.early": (all_("scenes", "status", "missing"), "L0000000 = 0"),
    "scenes.places.late": (all_("scenes", "status", "missing"), "L0000000 = 0"),
    # --- archive
    "archive.shards.some": (empty_locations, "observed: 0"),
    "archive.shards.files": (no_shard_1, "shard=0001 = chips.tar"),
    "archive.chips.some": (nothing_archived, "observed: 0"),
    "archive.chips.complete": (chips_column("item_id", None), "L0000000/p0s1 = item_id"),
    "archive.chips.place_known": (set_("chips", "location_id", "L0000099"), "L0000099/p0s1 = False"),
    "archive.chips.own_shard": (set_("chips", "shard", 1), "L0000000/p0s1 = 1"),
    "archive.chips.one_chip": (set_("chips", "season", 0), "L0000000/p0s0"),
    "archive.chips.period": (chips_column("period", 2), "L0000000/p2s1 = 2"),
    "archive.chips.season": (chips_column("season", 3), "L0000000/p0s3 = 3"),
    "archive.chips.clear": (chips_column("clear_fraction", 0.89), "L0000000/p0s1 = 0.89"),
    "archive.chips.cloud_cover": (chips_column("cloud_cover", 101.0), "L0000000/p0s1 = 101"),
    "archive.chips.sha256_format": (chips_column("sha256", "d41d8cd9"), "L0000000/p0s1 = d41d8cd9"),
    "archive.chips.bytes_positive": (chips_column("length", 0), "L0000000/p0s1 = 0"),
    "archive.chips.bytes_in_tar": (chips_column("length", 10_000_000), "L0000000/p0s1"),
    "archive.chips.bytes_own": (chips_column("offset", lambda frame: frame["offset"][0]), "L0000000/p0s0"),
    "archive.chips.utm": (chips_column("epsg", 4326), "L0000000/p0s1 = 4326"),
    "archive.places.explained": (lost_place, "L0000003 = False"),
    "archive.places.one_grid": (second_grid, "L0000000 = 2"),
    "archive.places.zone": (all_("chips", "epsg", 32731), "L0000000 = 60"),
    "archive.places.dates": (fewer_dates, "L0000000 = 2"),
    "archive.pixels.sha256": (chips_column("sha256", "0" * 64), "L0000000/p0s1 = False"),
    "archive.pixels.readable": (garbage_in_tar, "L0000000/p0s0"),
    "archive.pixels.layout": (profile(dtype="int32"), "L0000000/p0s1 = dtype int32"),
    "archive.pixels.nodata": (pixels(lambda array: array * (np.arange(32) > 8)), "L0000000/p0s1"),
    "archive.pixels.saturated": (pixels(band_to(60_000)), "L0000000/p0s1 = 0.25"),
    "archive.pixels.reflectance": (pixels(lambda array: array * 15), "L0000000/p0s1"),
    "archive.pixels.alive": (pixels(band_to(700, band=2)), "L0000000/p0s1 = B04"),
    "archive.dark_shift.harmonised": (late_period_plus_1000, "B08 = 100"),
    "archive.quarantine.share": (half_lost, "all = 0.58"),
    "archive.quarantine.explained": (lost_without_reason, "unexplained = 1"),
    "archive.quarantine.reasons": (set_("quarantine", "reason", None, row=0), "(no reason) = 1"),
    "archive.quarantine.details": (set_("quarantine", "detail", "", row=0), "cloudy = 1"),
    # --- pack
    "pack.complete": (about(stretch_table_sha256=None), "stretch_table_sha256"),
    "pack.settings": (about(bands=["B02", "B03", "B04"]), "bands=['B02', 'B03', 'B04']"),
    "pack.stretch_table": (about(stretch_table_sha256="abc"), "abc"),
    "pack.rows_counted": (about(count=13), "pack.json = -1"),
    "pack.arrays_counted": (unreadable_array, "pack.json = -6"),
    "pack.files.some": (no_arrays, "observed: 0"),
    "pack.files.readable": (unreadable_array, "images-0001.npy"),
    "pack.files.dtype": (as_float, "images-0000.npy = float32"),
    "pack.files.shape": (narrower_array, "expected (2, 3, 32, 32, 3)"),
    "pack.rows.some": (drop("pack_rows", lambda frame: frame["row"] > 99), "observed: 0"),
    "pack.rows.complete": (set_("pack_rows", "lat", None), "L0000001 = lat"),
    "pack.rows.place_once": (set_("pack_rows", "location_id", "L0000000"), "L0000000"),
    "pack.rows.row_once": (set_("pack_rows", "row", 0), "images-0000.npy, 0"),
    "pack.rows.row_exists": (set_("pack_rows", "row", 6), "images-0000.npy[6]"),
    "pack.rows.place_known": (set_("pack_rows", "location_id", "L0000099"), "L0000099 = False"),
    "pack.rows.valid_length": (set_("pack_rows", "valid", [True] * 5), "L0000001 = 5"),
    "pack.rows.dates": (set_("pack_rows", "valid", [True] * 5 + [False]), "L0000001 = 2"),
    "pack.rows.alive": (dead_image, "L0000003 = p1s2"),
    "pack.bands.dark_end": (flood(0), "B03"),
    "pack.bands.bright_end": (flood(255), "B03"),
    # --- scores
    "scores.some": (drop("scores", lambda frame: frame["seed"] > 9), "observed: 0"),
    "scores.complete": (set_("scores", "data_version", None), "eurosat_twin/caco/clean/linear_probe/64/1/accuracy = data_version"),
    "scores.repeated": (repeat_score, "eurosat_twin/caco/clean/linear_probe/64/0/accuracy = True"),
    "scores.status": (set_("scores", "status", "guessed"), "guessed"),
    "scores.role": (set_("scores", "role", "winner"), "winner"),
    "scores.protocol": (set_("scores", "protocol", "mine"), "mine"),
    "scores.value": (set_("scores", "value", 80.0), "= 80"),
    "scores.ci_low": (set_("scores", "ci_low", -0.1), "= -0.1"),
    "scores.ci_high": (set_("scores", "ci_high", 1.2), "= 1.2"),
    "scores.below_ci": (set_("scores", "ci_low", 0.81), "= 0.01"),
    "scores.above_ci": (set_("scores", "ci_high", 0.79), "= 0.01"),
    "scores.n": (set_("scores", "n", 0), "= 0"),
    "scores.reason": (set_("scores", "note", None, row=12), "eurosat_real/caco/clean = True"),
    "scores.margins.beats_random": (below_random, "eurosat_twin/caco/clean/knn5/64/accuracy = 0.01"),
}


def product_of(check: str) -> str:
    return check.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_valid_product_passes_without_a_warning(world, product):
    world.write()
    result = validate(world.settings, product)
    assert [*result.blocking_failed, *result.warnings] == []
    assert result.success
    assert result.evaluated == len(result.table) >= 10


def test_every_expectation_has_a_break(settings):
    from caco_assets.validation.suites import SUITES

    names = [
        f"{suite.name}.{one.meta['check']}"
        for product in PRODUCTS
        for suite in SUITES[product](settings)
        for one in suite.expectations
    ]
    assert len(names) == len(set(names))
    assert set(names) == set(BREAKS)


@pytest.fixture
def only_suite(monkeypatch):
    """Lets `validate` run one suite alone: all suites of a product for each break take minutes."""

    def only(name):
        keep = stage.keep

        def kept(settings, product, tables, suites):
            ((table, suite),) = [pair for pair in zip(tables, suites, strict=True) if pair[1].name == name]
            return keep(settings, product, [table], [suite])

        monkeypatch.setattr(stage, "keep", kept)

    return only


@pytest.mark.parametrize("check", BREAKS)
def test_a_broken_product_fails_its_expectation_and_the_line_names_what_breaks_it(world, only_suite, check):
    damage, named = BREAKS[check]
    damage(world)
    world.write()
    only_suite(check.rpartition(".")[0])
    result = validate(world.settings, product_of(check))
    row = next(row for row in result.table if f"{row['table']}.{row['check']}" == check)
    assert not row["success"]
    assert not result.success
    where = {"blocking": result.blocking_failed, "warning": result.warnings}[row["severity"]]
    assert row["line"] in where
    assert "\n" not in row["line"]
    assert row["line"].startswith(f"{check}: {row['says']}")
    assert named in row["line"]
