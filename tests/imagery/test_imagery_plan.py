import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.grid import chip_footprints, chip_grids
from caco_assets.imagery.periods import period_windows
from caco_assets.imagery.plan import SCHEMA, choose, containing, read_scenes, search_boxes, to_table, write_scenes
from caco_assets.imagery.radiometry import Radiometry
from caco_assets.imagery.scene import Scene

WINDOWS = period_windows("2026-12", 4, 12, 3)
START = datetime(2026, 1, 1, tzinfo=UTC)
USUAL = Radiometry(1e-4, 0.0)
WORLD = shapely.box(-10, 30, 10, 50)


def scene(item_id: str, day: int, cloud: float | None = 5.0, geometry=WORLD, year: int = 2026, exceptions=None) -> Scene:
    moment = START.replace(year=year) + timedelta(days=day)
    return Scene(item_id, moment, cloud, 32631, "05.00", USUAL, exceptions or {}, {"B02": f"./{item_id}.tif"}, geometry)


def ordered(*scenes: Scene) -> list[Scene]:
    return sorted(scenes, key=lambda one: (one.datetime, one.item_id))


def planned(scenes: list[Scene], places: int = 1, max_scene_cloud: float = 90.0) -> list[tuple]:
    footprints = chip_footprints(chip_grids(np.linspace(2.0, 2.5, places), np.full(places, 42.0), 64, 10))
    slots = choose(scenes, footprints, WINDOWS, max_scene_cloud)
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


def test_ties_go_by_time_and_then_by_name():
    scenes = ordered(scene("b", 10), scene("a", 10), scene("c", 5))
    assert [row[1] for row in late(planned(scenes), 0)] == ["c", "a", "b"]


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


def slow_plan(scenes, footprints, max_scene_cloud):
    """The rules, place by place."""
    rows = []
    for place, footprint in enumerate(footprints):
        for period, seasons in enumerate(WINDOWS):
            span = seasons[0][0], seasons[-1][1]
            usable = [
                (index, one)
                for index, one in enumerate(scenes)
                if span[0] <= one.datetime < span[1]
                and (one.cloud_cover is None or one.cloud_cover <= max_scene_cloud)
                and footprint.within(one.geometry)
            ]

            def best(pair):
                return pair[1].cloud_cover is None, pair[1].cloud_cover or 0.0, pair[1].datetime, pair[0]

            for season, (start, end) in enumerate(seasons):
                own = sorted((pair for pair in usable if start <= pair[1].datetime < end), key=best)

                def distance(pair, start=start, end=end):
                    when = pair[1].datetime
                    gap = (start - when).total_seconds() if when < start else (when - end).total_seconds() + 1e-6
                    return gap, best(pair)

                others = sorted((pair for pair in usable if pair not in own), key=distance)[: len(seasons) + 3]
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
            )
            for number in range(count)
        )
    )
    footprints = chip_footprints(chip_grids(np.linspace(2.0, 2.5, 3), np.full(3, 42.0), 64, 10))
    slots = choose(scenes, footprints, WINDOWS, 90.0)
    found = list(
        zip(*(getattr(slots, name).tolist() for name in ("place", "period", "season", "rank", "scene", "status")), strict=True)
    )
    assert found == slow_plan(scenes, footprints, 90.0)


def test_pairs_are_all_places_in_all_scenes():
    scenes = ordered(scene("a", 1), scene("b", 2, geometry=shapely.box(2.2, 41, 2.6, 43)))
    footprints = chip_footprints(chip_grids(np.array([2.0, 2.4]), np.full(2, 42.0), 64, 10))
    place, index = containing(scenes, footprints)
    assert sorted(zip(place.tolist(), index.tolist(), strict=True)) == [(0, 0), (1, 0), (1, 1)]


def test_places_are_searched_together_by_cells():
    lon, lat = np.array([2.31, 2.32, 3.5, -70.2]), np.array([42.1, 42.2, 42.1, -30.0])
    boxes = list(search_boxes(chip_footprints(chip_grids(lon, lat, 64, 10))))
    assert len(boxes) == 3
    assert all(east - west < 1.1 and north - south < 1.1 for west, south, east, north in boxes)


def test_the_table_has_the_contract_and_the_same_bytes_each_time(tmp_path):
    scenes = ordered(scene("a", 10, None, exceptions={"B04": Radiometry(1e-4, -0.7)}), scene("b", 140, 3.5))
    footprints = chip_footprints(chip_grids(np.array([2.0, 2.4]), np.full(2, 42.0), 64, 10))
    slots = choose(scenes, footprints, WINDOWS, 90.0)
    ids, shards = np.array(["L0000000", "L0000001"], object), np.array([0, 1], np.int32)
    for name in ("one", "two"):
        write_scenes(tmp_path / name, to_table(slots, scenes, ids, shards))
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


@pytest.mark.parametrize("places", [2000])
def test_thousands_of_places_are_planned_at_once(places):
    scenes = ordered(*(scene(f"s{day:03d}", day, float(day % 90)) for day in range(0, 364, 7)))
    rows = planned(scenes, places=places)
    assert len(rows) == places * (52 + 3 * 6 + 3)
