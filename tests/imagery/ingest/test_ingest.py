import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import recorded
from caco_assets.imagery.archive.preview import chips_preview
from caco_assets.imagery.archive.shard import iter_chips, read_index
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.settings import Settings

DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")


def run(settings: Settings, shards: int = 2, *, empty: bool = False) -> list[dict]:
    """Plan, ingest every shard, collect; returns the rows of the quarantine. `empty`: not one chip is expected."""
    plan(settings)
    for shard in range(shards):
        ingest_shard(settings, shard)
    if empty:
        with pytest.raises(UserError, match=r"archive: not one chip of 4 places: "):
            collect(settings)
        return pq.read_table(settings.paths.quarantine).to_pylist()
    return pq.read_table(collect(settings).path).to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def reasons(rows: list[dict]) -> set[str]:
    return {row["reason"] for row in rows}


def test_clear_scenes_become_harmonised_chips_on_one_grid_per_place(six_dates):
    assert run(six_dates) == []
    chips = list(iter_chips(six_dates.paths.archive))
    assert len(chips) == 4 * 6
    assert {chip.pixels.shape for chip in chips} == {(4, 64, 64)}
    for chip in chips:
        # the scene's reflectance, its band's own 0.01 more, and a ramp up to 0.0096: the +1000 of baseline 04.00 is gone
        floor = 500 + 100 * (3 * chip.period + chip.season)
        for number, layer in enumerate(chip.pixels):
            assert layer.min() == floor + 100 * number
            assert layer.max() == floor + 100 * number + 96
    rows = read_index(six_dates.paths.archive / "shard=0000").to_pylist()
    assert {row["epsg"] for row in rows} == {32631}
    assert {row["status"] for row in rows} == {"planned"}
    assert [row["datetime"].date().isoformat() for row in rows[:6]] == list(DATES)
    assert {row["clear_fraction"] for row in rows} == {1.0}
    assert verify_archive(six_dates.paths.archive) == []


def test_the_facts_describe_the_archive(six_dates):
    run(six_dates)
    facts = collect(six_dates).facts
    counts = {"shards": 2, "places": 4, "places_complete": 4, "chips": 24, "widened": 0, "clear_fraction": 1.0, "refused": {}}
    assert {name: facts[name] for name in counts} == counts
    assert facts["bytes"] == sum(path.stat().st_size for path in six_dates.paths.archive.rglob("chips.tar"))


def test_everything_is_reused_when_nothing_changed(six_dates):
    run(six_dates)
    assert plan(six_dates).reused
    assert ingest_shard(six_dates, 0).reused
    assert collect(six_dates).reused


def test_the_archive_does_not_depend_on_the_number_of_workers_or_the_folder(six_dates, over):
    run(six_dates)
    other = over(six_dates.imagery.source.path, home="other")
    other = other.model_copy(update={"imagery": other.imagery.model_copy(update={"workers": 1})})
    run(other)
    assert contents(six_dates.paths.archive) == contents(other.paths.archive)
    assert six_dates.paths.scenes.read_bytes() == other.paths.scenes.read_bytes()
    assert str(six_dates.home).encode() not in six_dates.paths.scenes.read_bytes()


def test_more_places_leave_the_finished_shards_as_they_are(six_dates):
    run(six_dates)
    from caco_assets.sampling.stage import sample

    more = six_dates.model_copy(update={"sampling": six_dates.sampling.model_copy(update={"places": 6})})
    sample(more)
    plan(more)
    assert ingest_shard(more, 0).reused
    assert not ingest_shard(more, 1).reused


KILLED = """
import os, signal, sys
from pathlib import Path
import caco_assets.imagery.ingest.fill_shard as fill_shard
from caco_assets.imagery.on_record import ingest_shard
from caco_assets.settings import CatalogSource, Sampling, load_settings

home, catalog, sampling = Path(sys.argv[1]), Path(sys.argv[2]), Sampling.model_validate_json(sys.argv[3])
settings = load_settings("tiny", home=home)
imagery = settings.imagery.model_copy(update={"source": CatalogSource(path=catalog), "workers": 1})
settings = settings.model_copy(update={"sampling": sampling, "imagery": imagery})
calls, encode = [], fill_shard.encode

def dying(*arguments):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)

fill_shard.encode = dying
ingest_shard(settings, 0)
"""


def test_a_killed_shard_is_made_again_bit_for_bit(six_dates, over):
    run(six_dates)
    other = over(six_dates.imagery.source.path, home="killed")
    plan(other)
    arguments = [str(other.home), str(other.imagery.source.path), other.sampling.model_dump_json()]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in other.paths.archive.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".shard=0000.partial-")
    ingest_shard(other, 0)
    assert [path.name for path in other.paths.archive.iterdir()] == ["shard=0000"]
    assert contents(other.paths.archive / "shard=0000") == contents(six_dates.paths.archive / "shard=0000")


def test_the_next_candidate_takes_the_place_of_a_cloudy_one(six_dates, tiny_earth, over):
    tiny_earth.scene("2022-04-25", cloud=0.0, scl=9)
    settings = over(tiny_earth.write(), home="cloudy")
    rows = run(settings)
    assert reasons(rows) == {"cloudy"}
    assert len(rows) == 4
    assert {(row["period"], row["season"], row["item_id"], row["clear_fraction"]) for row in rows} == {(0, 1, "S2_20220425", 0.0)}
    assert rows[0]["detail"] == "0% of the chip is clear (at least 90%)"
    assert len(list(iter_chips(settings.paths.archive))) == 24


def test_a_season_without_a_clear_scene_takes_a_spare_one_of_its_period_and_no_scene_serves_twice(tiny_earth, over):
    for date in ("2022-03-20", "2022-04-05", "2022-06-15", *DATES[3:]):
        tiny_earth.scene(date)
    settings = over(tiny_earth.write())
    assert run(settings) == []
    rows = [row for row in read_index(settings.paths.archive / "shard=0000").to_pylist() if row["location_id"] == "L0000000"]
    assert [(row["season"], row["status"]) for row in rows if row["period"] == 0] == [
        (0, "widened"),
        (1, "planned"),
        (2, "widened"),
    ]
    assert len({row["item_id"] for row in rows}) == 6


def test_two_items_of_one_overpass_are_one_date(tiny_earth, over):
    tiny_earth.scene("2022-03-20", time="10:40:12")
    for date in ("2022-03-20", "2022-08-20", *DATES[3:]):
        tiny_earth.scene(date)
    settings = over(tiny_earth.write())
    rows = run(settings, empty=True)
    assert reasons(rows) == {"too_few_seasons"}
    assert rows[0]["detail"] == "clear dates: 2 early, 3 late; at least 3 are needed in each period"


def test_a_place_with_too_few_dates_is_listed_and_its_chips_are_not_archived(tiny_earth, over):
    for date in DATES[:5]:
        tiny_earth.scene(date)
    settings = over(tiny_earth.write())
    rows = run(settings, empty=True)
    assert [(row["location_id"], row["reason"], row["period"], row["season"]) for row in rows] == [
        (f"L{index:07d}", "too_few_seasons", None, None) for index in range(4)
    ]
    assert list(iter_chips(settings.paths.archive)) == []
    assert recorded(settings.paths.records, "quarantine").facts["places_complete"] == 0
    assert chips_preview(settings.paths.archive).startswith(b"\x89PNG")


def test_a_period_without_any_scene_is_listed_slot_by_slot(tiny_earth, over):
    for date in DATES[:3]:
        tiny_earth.scene(date)
    rows = run(over(tiny_earth.write()), empty=True)
    assert reasons(rows) == {"no_scene", "too_few_seasons"}
    assert sum(row["reason"] == "no_scene" for row in rows) == 4 * 3
    assert {row["period"] for row in rows if row["reason"] == "no_scene"} == {1}


def spoil_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def spoil_page(path: Path) -> None:
    path.write_bytes(b"<html><body>403 Forbidden</body></html>")


@pytest.mark.parametrize(
    ("name", "spoil", "reason", "detail"),
    [
        ("B03.tif", spoil_truncated, "unreadable", ""),
        ("SCL.tif", spoil_page, "error_page", "SCL.tif: a page of HTML, not a GeoTIFF: the download failed"),
        ("B02.tif", Path.unlink, "unreadable", "B02.tif: the file does not exist"),
        ("B08.tif", lambda path: path.write_bytes(b""), "unreadable", "B08.tif: the file is empty"),
    ],
)
def test_a_spoilt_file_refuses_its_chips_and_the_next_scene_serves(six_dates, tiny_earth, over, name, spoil, reason, detail):
    tiny_earth.scene("2026-04-20", cloud=0.0)
    settings = over(tiny_earth.write(), home="spoilt")
    spoil(tiny_earth.folder / "S2_20260420" / name)
    rows = run(settings)
    assert {(row["reason"], row["item_id"], row["period"], row["season"]) for row in rows} == {(reason, "S2_20260420", 1, 1)}
    assert len(rows) == 4
    assert all(detail in row["detail"] and str(settings.home.parent) not in row["detail"] for row in rows)
    assert len(list(iter_chips(settings.paths.archive))) == 24


def test_a_chip_without_data_is_refused(six_dates, tiny_earth, over, tif):
    tiny_earth.scene("2026-04-20", cloud=0.0)
    settings = over(tiny_earth.write(), home="empty")
    for band in ("B02", "B03", "B04", "B08"):
        tif(tiny_earth.folder / "S2_20260420" / f"{band}.tif", np.zeros((1, 480, 480), np.uint16), 498_000.0, 4_651_020.0, 10)
    rows = run(settings)
    assert [row["reason"] for row in rows] == ["nodata"] * 4
    assert rows[0]["detail"] == "100% of the chip has no data (at most 1%)"


def test_no_data_in_the_scene_classification_is_no_data_not_cloud(six_dates, tiny_earth, over):
    tiny_earth.scene("2026-04-20", cloud=0.0, scl=0)
    assert [row["reason"] for row in run(over(tiny_earth.write(), home="swath"))] == ["nodata"] * 4


def test_a_file_smaller_than_its_footprint_says_is_refused(six_dates, tiny_earth, over, tif):
    tiny_earth.scene("2026-04-20", cloud=0.0)
    settings = over(tiny_earth.write(), home="small")
    tif(tiny_earth.folder / "S2_20260420" / "SCL.tif", np.full((1, 8, 8), 4, np.uint8), 498_000.0, 4_651_020.0, 20)
    rows = run(settings)
    assert [row["reason"] for row in rows] == ["outside_footprint"] * 4


def test_without_a_classification_the_reflectance_decides(six_dates, tiny_earth, over):
    tiny_earth.scene("2026-04-20", cloud=0.0, reflectance=0.6)
    tiny_earth.scene("2026-04-22", cloud=1.0, reflectance=0.04)
    for item in tiny_earth.items[-2:]:
        del item["assets"]["SCL"]
    settings = over(tiny_earth.write(), home="plain")
    assert {(row["reason"], row["item_id"]) for row in run(settings)} == {("cloudy", "S2_20260420")}
    used = {row["item_id"] for row in read_index(settings.paths.archive / "shard=0000").to_pylist()}
    assert "S2_20260422" in used


def test_the_quarantine_is_the_shards_refusals_one_after_the_other(six_dates, tiny_earth, over):
    tiny_earth.scene("2022-04-25", cloud=0.0, scl=9)
    settings = over(tiny_earth.write(), home="q")
    rows = run(settings)
    parts = [pq.read_table(settings.paths.archive / f"shard={shard:04d}" / "quarantine.parquet").to_pylist() for shard in range(2)]
    assert rows == parts[0] + parts[1]
    assert [row["shard"] for row in rows] == [0, 0, 0, 1]


def test_a_stale_shard_is_removed_and_said_so(logged, six_dates):
    run(six_dates)
    shutil.copytree(six_dates.paths.archive / "shard=0001", six_dates.paths.archive / "shard=0007")
    said = logged()
    collect(six_dates)
    assert said == ["archive: shard=0007 belongs to an earlier run with more places; removed"]
    assert not (six_dates.paths.archive / "shard=0007").exists()


def test_wrong_calls_are_errors_that_say_what_to_do(six_dates, tiny_earth, over):
    with pytest.raises(UserError, match="scenes: not made yet"):
        ingest_shard(six_dates, 0)
    plan(six_dates)
    with pytest.raises(UserError, match="shard=2: there are 2 shards, 0 to 1"):
        ingest_shard(six_dates, 2)
    with pytest.raises(UserError, match="archive/shard=0000: not made yet"):
        collect(six_dates)


def test_a_catalog_of_other_years_is_an_error_that_names_the_periods(tiny_earth, over):
    tiny_earth.scene("2019-05-01")
    with pytest.raises(
        UserError, match=r"no scene near the places in the 12 months from 2021-11-01 and from 2025-11-01; change vintage"
    ):
        plan(over(tiny_earth.write()))


def test_a_catalog_without_the_wanted_bands_says_which_is_lacking(tiny_earth, over):
    tiny_earth.scene("2022-04-05")
    del tiny_earth.items[0]["assets"]["B03"]
    with pytest.raises(UserError, match="1 items cannot be used, each because it lacks B03"):
        plan(over(tiny_earth.write()))


def test_the_preview_is_a_picture(six_dates):
    run(six_dates)
    picture = chips_preview(six_dates.paths.archive, places=2)
    assert picture.startswith(b"\x89PNG")
    assert picture == chips_preview(six_dates.paths.archive, places=2)
