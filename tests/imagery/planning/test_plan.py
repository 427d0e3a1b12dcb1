import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import shapely
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.geometry.chip_grid import chip_footprints, chip_grids
from caco_assets.imagery.geometry.footprint import across_antimeridian, raster_footprint
from caco_assets.imagery.geometry.mgrs_cells import box_around
from caco_assets.imagery.planning.plan import Sites, write_plan
from caco_assets.imagery.planning.ranking import Limits, holding, rank_scenes
from caco_assets.imagery.planning.scenes_parquet import SCHEMA, SceneWriter, read_scenes, to_table
from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.imagery.scenes.scene_table import scene_table
from caco_assets.imagery.scenes.stac_item import Scene

WINDOWS = period_windows("2026-12", 4, 12, 3)
START = datetime(2026, 1, 1, tzinfo=UTC)
USUAL = Radiometry(1e-4, 0.0)
WORLD = shapely.box(-10, 30, 10, 50)


def scene(item_id: str, day: float, cloud: float | None = 5.0, geometry=WORLD, year: int = 2026, exceptions=None, **other) -> Scene:
    moment = START.replace(year=year) + timedelta(days=day)
    facts = {"epsg": 32631, "processing_baseline": "05.00", **other}
    return Scene(
        item_id,
        moment,
        cloud,
        **facts,
        radiometry=USUAL,
        exceptions=exceptions or {},
        hrefs={"B02": f"./{item_id}.tif"},
        geometry=geometry,
    )


def ordered(*scenes: Scene) -> list[Scene]:
    return sorted(scenes, key=lambda one: (one.datetime, one.item_id))


def planned(scenes: list[Scene], places: int = 1, max_scene_cloud: float = 90.0, candidates: int = 8, footprints=None, epsg=None):
    if footprints is None:
        footprints = chip_footprints(chip_grids(np.linspace(2.0, 2.5, places), np.full(places, 42.0), 64, 10))
    slots = rank_scenes(
        scene_table(scenes), holding(scene_table(scenes), footprints), epsg, WINDOWS, Limits(max_scene_cloud, candidates)
    )
    names = [scenes[index].item_id if index >= 0 else None for index in slots.scene]
    status = [("planned", "widened", "missing")[code] for code in slots.status]
    columns = (slots.place.tolist(), slots.period.tolist(), slots.season.tolist(), slots.rank.tolist())
    return list(zip(*columns, names, status, strict=True))


def late(rows: list[tuple], season: int) -> list[tuple]:
    return [row[3:] for row in rows if row[1] == 1 and row[2] == season]


def test_in_its_window_the_least_cloudy_scene_comes_first_and_unknown_cloud_last():
    scenes = ordered(
        scene("unknown-late", 60, None), scene("cloudier", 10, 40.0), scene("clear", 50, 1.0), scene("unknown-early", 20, None)
    )
    assert late(planned(scenes), 0) == [
        (0, "clear", "planned"), (1, "cloudier", "planned"), (2, "unknown-early", "planned"), (3, "unknown-late", "planned"),
    ]  # fmt: skip


def test_ties_go_by_time():
    scenes = ordered(scene("b", 10), scene("a", 11), scene("c", 5))
    assert [row[1] for row in late(planned(scenes), 0)] == ["c", "b", "a"]


def test_other_seasons_take_scenes_from_outside_their_window_after_their_own():
    scenes = ordered(scene("spring", 10), scene("summer", 130, 80.0))
    rows = planned(scenes)
    assert late(rows, 1) == [(0, "summer", "planned"), (1, "spring", "widened")]
    assert late(rows, 2) == [(0, "spring", "widened"), (1, "summer", "widened")]


def test_a_period_without_scenes_is_missing_in_every_season():
    rows = planned(ordered(scene("spring", 10)), places=2)
    early = [row for row in rows if row[1] == 0]
    assert early == [(place, 0, season, 0, None, "missing") for place in range(2) for season in range(3)]


def test_scenes_of_the_other_period_and_of_the_gap_never_serve():
    rows = planned(ordered(scene("gap", 10, year=2024), scene("early", 10, year=2022)))
    assert {row[4] for row in rows if row[1] == 1} == {None}
    assert {row[4] for row in rows if row[1] == 0} == {"early"}


def test_scenes_cloudier_than_the_limit_are_not_listed_but_unknown_ones_are():
    scenes = ordered(scene("at-limit", 10, 50.0), scene("over", 11, 50.1), scene("unknown", 12, None))
    assert [row[1] for row in late(planned(scenes, max_scene_cloud=50.0), 0)] == ["at-limit", "unknown"]


def test_only_scenes_that_hold_the_whole_chip_are_candidates():
    edge = shapely.box(2.0, 41, 3, 43)  # the first place's chip reaches beyond its western edge
    rows = planned(ordered(scene("edge", 10, geometry=edge)), places=2)
    assert late([row for row in rows if row[0] == 0], 0) == [(0, None, "missing")]
    assert late([row for row in rows if row[0] == 1], 0) == [(0, "edge", "planned")]


def test_far_scenes_are_listed_only_up_to_a_limit_and_the_nearest_in_time_are_kept():
    scenes = ordered(*(scene(f"s{day:03d}", day, float(day % 7)) for day in range(0, 120, 5)))
    rows = late(planned(scenes), 2)
    assert len(rows) == 6
    assert {row[1] for row in rows} == {f"s{day:03d}" for day in (90, 95, 100, 105, 110, 115)}
    clouds = [int(row[1][1:]) % 7 for row in rows]
    assert clouds == sorted(clouds)


def slow_passes(pairs, epsg):
    """Of each overpass the newest processing, in the chip's zone, least cloudy, last by name."""
    groups = []
    for pair in pairs:
        near = groups and pair[1].datetime - groups[-1][-1][1].datetime < timedelta(minutes=30)
        groups[-1].append(pair) if near else groups.append([pair])

    def key(pair):
        return (
            pair[1].processing_baseline,
            pair[1].epsg == epsg,
            -100.5 if pair[1].cloud_cover is None else -pair[1].cloud_cover,
            pair[0],
        )

    return [max(group, key=key) for group in groups]


def slow_plan(scenes, footprints, max_scene_cloud, candidates, epsg):
    """The rules, place by place."""
    rows = []
    for place, footprint in enumerate(footprints):
        for period, seasons in enumerate(WINDOWS):
            span = seasons[0][0], seasons[-1][1]
            usable = [
                (index, one)
                for index, one in enumerate(scenes)
                if (one.cloud_cover is None or one.cloud_cover <= max_scene_cloud) and footprint.within(one.geometry)
            ]
            usable = [pair for pair in slow_passes(usable, epsg) if span[0] <= pair[1].datetime < span[1]]

            def best(pair):
                return pair[1].cloud_cover is None, pair[1].cloud_cover or 0.0, pair[1].datetime, pair[0]

            for season, (start, end) in enumerate(seasons):
                inside = sorted((pair for pair in usable if start <= pair[1].datetime < end), key=best)
                own = inside[:candidates]

                def distance(pair, start=start, end=end):
                    when = pair[1].datetime
                    gap = (start - when).total_seconds() if when < start else (when - end).total_seconds() + 1e-6
                    return gap, best(pair)

                others = sorted((pair for pair in usable if pair not in inside), key=distance)[: len(seasons) + 3]
                listed = [(pair, 0) for pair in own] + [(pair, 1) for pair in sorted(others, key=best)]
                rows += [(place, period, season, rank, pair[0], code) for rank, (pair, code) in enumerate(listed)]
                rows += [] if listed else [(place, period, season, 0, -1, 2)]
    return rows


@given(st.data())
def test_the_fast_plan_is_the_obvious_one(data):
    count = data.draw(st.integers(1, 14))
    boxes = [WORLD, shapely.box(2.1, 41, 2.6, 43), shapely.box(0, 41, 2.3, 43)]
    scenes = ordered(
        *(
            scene(
                f"s{number:02d}",
                data.draw(st.integers(0, 364)),
                data.draw(st.sampled_from([None, 0.0, 10.0, 10.0, 95.0])),
                data.draw(st.sampled_from(boxes)),
                data.draw(st.sampled_from([2022, 2026])),
                processing_baseline=data.draw(st.sampled_from(["02.14", "05.00"])),
                epsg=data.draw(st.sampled_from([32630, 32631])),
            )
            for number in range(count)
        )
    )
    footprints = chip_footprints(chip_grids(np.linspace(2.0, 2.5, 3), np.full(3, 42.0), 64, 10))
    candidates = data.draw(st.integers(1, 5))
    slots = rank_scenes(scene_table(scenes), holding(scene_table(scenes), footprints), 32631, WINDOWS, Limits(90.0, candidates))
    found = list(
        zip(*(getattr(slots, name).tolist() for name in ("place", "period", "season", "rank", "scene", "status")), strict=True)
    )
    assert found == slow_plan(scenes, footprints, 90.0, candidates, 32631)


def test_the_table_has_the_contract_and_the_same_bytes_each_time(tmp_path):
    scenes = ordered(scene("a", 10, None, exceptions={"B04": Radiometry(1e-4, -0.7)}), scene("b", 140, 3.5))
    footprints = chip_footprints(chip_grids(np.array([2.0, 2.4]), np.full(2, 42.0), 64, 10))
    slots = rank_scenes(scene_table(scenes), holding(scene_table(scenes), footprints), None, WINDOWS, Limits(90.0, 8))
    ids, shards = np.array(["L0000000", "L0000001"], object), np.array([0, 1], np.int32)
    for name in ("one", "two"):
        with SceneWriter(tmp_path / name) as writer:
            writer.write(to_table(slots, scene_table(scenes), ids, shards))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    stored = pq.read_table(tmp_path / "one")
    assert stored.schema.remove_metadata().equals(SCHEMA)
    table = read_scenes(tmp_path / "one", shard=1)
    assert set(table["location_id"].to_pylist()) == {"L0000001"}
    first = table.filter(np.array(table["status"].to_pylist()) == "planned").to_pylist()[0]
    assert first["item_id"] == "a"
    assert first["cloud_cover"] is None
    assert first["datetime"] == scenes[0].datetime
    assert json.loads(first["radiometry"]) == {"B04": [1e-4, -0.7]}
    assert json.loads(first["hrefs"]) == {"B02": "./a.tif"}
    missing = [row for row in table.to_pylist() if row["status"] == "missing"]
    assert len(missing) == 3
    assert all(missing[0][name] is None for name in ("rank", "item_id", "datetime", "scale", "hrefs"))


def test_thousands_of_places_are_planned_at_once():
    scenes = ordered(*(scene(f"s{day:03d}", day, float(day % 90)) for day in range(0, 364, 7)))
    rows = planned(scenes, places=2000, candidates=52)
    assert len(rows) == 2000 * (52 + 3 * 6 + 3)


def test_no_more_candidates_are_listed_than_asked_for_and_the_least_cloudy_are():
    scenes = ordered(*(scene(f"s{day:03d}", day, float(day % 10)) for day in range(0, 120, 3)))
    rows = late(planned(scenes, candidates=4), 0)
    assert [(row[0], row[2]) for row in rows] == [(rank, "planned") for rank in range(4)]
    assert [int(row[1][1:]) % 10 for row in rows] == [0, 0, 0, 0]


def test_of_several_processings_of_an_acquisition_the_newest_baseline_is_taken():
    scenes = ordered(
        scene("old", 10, 1.0, processing_baseline="02.09"),
        scene("new", 10, 9.0, processing_baseline="05.00"),
        scene("unknown", 10, 0.0, processing_baseline=None),
    )
    assert late(planned(scenes), 0) == [(0, "new", "planned")]


def test_of_equal_processings_the_last_by_name_is_taken():
    scenes = ordered(scene("T01WCP_20230626T022157", 10), scene("T01WCP_20230626T022158", 10))
    assert late(planned(scenes), 0) == [(0, "T01WCP_20230626T022158", "planned")]


def test_an_old_processing_serves_where_the_new_one_does_not_reach():
    west = shapely.box(-10, 30, 2.2, 50)
    scenes = ordered(scene("old", 10, processing_baseline="02.09"), scene("new", 10, geometry=west, processing_baseline="05.00"))
    rows = planned(scenes, places=2)
    assert [late([row for row in rows if row[0] == place], 0)[0][1] for place in range(2)] == ["new", "old"]


def test_of_an_overpass_the_tile_in_the_chips_own_zone_is_taken():
    """At 6° E two tiles of one overpass hold the chip, one in each zone: the own one needs no resampling."""
    scenes = ordered(scene("T31", 10, 50.0, epsg=32631), scene("T32", 10.001, 1.0, epsg=32632))
    grids = chip_grids(np.array([5.99, 6.01]), np.full(2, 42.0), 64, 10)
    assert [grid.epsg for grid in grids] == [32631, 32632]
    for grid, name in zip(grids, ("T31", "T32"), strict=True):
        rows = planned(scenes, footprints=chip_footprints([grid]), epsg=grid.epsg)
        assert late(rows, 0) == [(0, name, "planned")]


def s2_tile(epsg: int, left: float, top: float):
    return raster_footprint((left, top - 109_800, left + 109_800, top), f"EPSG:{epsg}")


def test_beyond_its_zone_a_tile_still_serves_when_it_holds_the_whole_chip():
    tile = s2_tile(32631, 699_960, 4_700_040)  # reaches beyond 6° E
    inside, beyond = chip_grids(np.array([5.95, 6.6]), np.full(2, 42.0), 264, 10)
    assert (inside.epsg, beyond.epsg) == (32631, 32632)
    rows = planned(ordered(scene("T31TGG", 10, geometry=tile)), footprints=chip_footprints([inside, beyond]), epsg=32632)
    assert [late([row for row in rows if row[0] == place], 0)[0][1] for place in range(2)] == ["T31TGG", "T31TGG"]


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_the_overlap_of_neighbouring_tiles_leaves_no_chip_between_them(across, down):
    """Tiles start every 100 km and are 109.8 km wide; a chip of 2.64 km always lies wholly in one of four neighbours."""
    origins = [(300_000 + 99_960 * column, 4_700_040 - 99_960 * row) for column in range(2) for row in range(2)]
    scenes = ordered(*(scene(f"t{n}", 10, geometry=s2_tile(32631, *origin)) for n, origin in enumerate(origins)))
    x, y = 300_000 + 2_000 + across * 205_000, 4_700_040 - 2_000 - down * 205_000
    chip = raster_footprint((x - 1320, y - 1320, x + 1320, y + 1320), "EPSG:32631")
    assert planned(scenes, footprints=np.array([chip], object))[-3][5] == "planned"


def test_a_chip_across_the_antimeridian_is_held_by_a_tile_across_it_and_by_no_other(real):
    item = json.loads((real / "stac_items" / "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.json").read_text())
    tile = across_antimeridian(shapely.from_geojson(json.dumps(item["geometry"])))
    grids = chip_grids(np.array([179.9995, -179.9]), np.full(2, 66.2), 64, 10)
    chips = chip_footprints(grids)
    assert chips[0].geom_type == "MultiPolygon"
    rows = planned(
        ordered(scene("T01WCP", 10, geometry=tile), scene("west", 11, geometry=shapely.box(178, 60, 180, 70))), footprints=chips
    )
    assert late([row for row in rows if row[0] == 0], 0) == [(0, "T01WCP", "planned")]
    assert late([row for row in rows if row[0] == 1], 0) == [(0, "T01WCP", "planned")]


def test_the_box_around_places_on_both_sides_of_the_antimeridian_is_narrow():
    grids = chip_grids(np.array([179.9995, 179.5]), np.full(2, 66.2), 64, 10)
    west, south, east, north = box_around(chip_footprints(grids), grids[0].epsg)
    assert 179.4 < west < 179.5
    assert -180 < east < -179.9
    assert 66.1 < south < north < 66.3
    grids = chip_grids(np.array([-179.9995]), np.array([-16.5]), 64, 10)
    west, _, east, _ = box_around(chip_footprints(grids), grids[0].epsg)
    assert (179.9 < west < 180, -180 < east < -179.9) == (True, True)


def many_places(count: int, lon: tuple[float, float] = (2.0, 4.0), lat: tuple[float, float] = (41.0, 43.0)) -> Sites:
    rng = np.random.default_rng(0)
    ids = [f"L{number:07d}" for number in range(count)]
    places = rng.uniform(*lon, count), rng.uniform(*lat, count)
    return Sites.of(ids, *places, (np.arange(count) // 100).astype(np.int32), 64, 10)


def test_places_of_a_square_are_looked_up_together():
    few, many = many_places(50).cells(), many_places(5000).cells()
    assert len(many) <= len(few) + 3
    assert sorted(np.concatenate(many).tolist()) == list(range(5000))
    for rows in many:
        box = box_around(many_places(5000).footprints(rows), 32631)
        assert box[2] - box[0] < 1.5
        assert box[3] - box[1] < 1.0


def test_a_plan_in_many_blocks_and_cells_has_the_rows_of_one_in_one_piece(tmp_path, monkeypatch):
    scenes = ordered(
        *(
            scene(f"s{day:03d}", day, float(day % 50), exceptions={"B04": Radiometry(1e-4, -0.7)} if day % 2 else None)
            for day in range(0, 360, 9)
        )
    )
    sites, catalog = many_places(1200), StaticCatalog(scene_table(scenes), {})
    facts = {}
    for name, block, cell in (("whole", 4096, 4096), ("cut", 100, 37)):
        monkeypatch.setattr("caco_assets.imagery.planning.plan.PLACES_AT_ONCE", block)
        monkeypatch.setattr("caco_assets.imagery.planning.plan.PLACES_TOGETHER", cell)
        monkeypatch.setattr("caco_assets.imagery.planning.plan.HELD_RECORDS", 10_000 if name == "cut" else 10**9)
        facts[name] = write_plan(tmp_path / name, sites, catalog, WINDOWS, Limits(90.0, 8), tmp_path / "scratch")
    assert read_scenes(tmp_path / "whole").equals(read_scenes(tmp_path / "cut"))
    assert pq.ParquetFile(tmp_path / "cut").num_row_groups == 12
    assert facts["whole"] | {"cells": 0} == facts["cut"] | {"cells": 0}
    assert facts["whole"]["scenes"] == 40
    assert read_scenes(tmp_path / "whole")["location_id"].to_pylist() == sorted(
        read_scenes(tmp_path / "whole")["location_id"].to_pylist()
    )
    assert not (tmp_path / "scratch").exists()
