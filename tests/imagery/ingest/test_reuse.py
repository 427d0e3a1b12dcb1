"""The next vintage reads only what the archive lacks, and ends with the bytes of one that read everything."""

import json
import shutil

import numpy as np
import pytest

from caco_assets.imagery.archive.shard import iter_chips
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.settings import Settings, load_settings

DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")
NEXT = {"vintage": "2027-01"}
"""Its periods begin in February: what was seen in December has gone out of them."""


def run(settings: Settings) -> dict:
    plan(settings)
    for shard in range(2):
        ingest_shard(settings, shard)
    return collect(settings).facts


def contents(settings: Settings) -> dict[str, bytes]:
    files = (path for path in sorted(settings.paths.archive.rglob("*")) if path.is_file())
    return {path.relative_to(settings.paths.archive).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def months(over, tiny_earth) -> tuple[Settings, Settings]:
    """The same home at a vintage and at one three months later, for which the provider has one cloudy and two new scenes."""
    for number, date in enumerate((*DATES, "2022-11-20", "2027-01-04")):
        tiny_earth.scene(date, reflectance=0.05 + 0.01 * number, baseline="04.00" if date > "2022-01-25" else "03.01")
    tiny_earth.scene("2026-05-01", cloud=1.0, scl=9)
    settings = over(tiny_earth.write())
    return settings, settings.model_copy(update=NEXT)


def test_scenes_that_two_vintages_share_are_not_read_again(months, over):
    first, second = months
    assert run(first)["taken_over"] == 0
    fresh = over(first.imagery.source.path, home="fresh").model_copy(update=NEXT)
    assert run(fresh)["taken_over"] == 0
    # the files of everything that the first vintage tried are gone from the provider: clear scenes and the cloudy one
    for date in (*DATES[1:3], *DATES[4:], "2026-05-01"):
        shutil.rmtree(first.imagery.source.path / f"S2_{date.replace('-', '')}")
    facts = run(second)
    assert (facts["chips"], facts["taken_over"], facts["refused"]) == (24, 16, {"cloudy": 4})
    assert contents(second) == contents(fresh)


def test_a_scene_whose_numbers_mean_something_else_now_is_read_again(months):
    first, second = months
    run(first)
    # the provider corrects the offset of one scene
    note = first.paths.records / "archive" / "shard=0000.read"
    noted = json.loads(note.read_text())
    assert len(noted["scenes"]["S2_20260406"]) == 16
    noted["scenes"]["S2_20260406"] = "0" * 16
    note.write_text(json.dumps(noted))
    assert run(second)["taken_over"] == 16 - 3  # of the three places of that shard


def test_chips_read_with_other_settings_are_not_reused(months):
    first, second = months
    run(first)
    stricter = second.model_copy(update={"imagery": second.imagery.model_copy(update={"min_clear": 0.95})})
    assert run(stricter)["taken_over"] == 0


def test_an_archive_whose_bytes_are_not_those_on_record_is_not_trusted(months):
    first, second = months
    run(first)
    with (first.paths.archive / "shard=0000" / "chips.tar").open("r+b") as tar:
        tar.seek(600)
        tar.write(b"damage")
    assert run(second)["taken_over"] == 4  # of the other shard, which has one place
    assert all(np.ptp(chip.pixels) < 10_000 for chip in iter_chips(second.paths.archive))


def test_vintages_of_the_embedded_earth_share_the_overpasses_of_the_months_that_they_share(tmp_path):
    from caco_assets.imagery.scenes.periods import period_windows
    from caco_assets.synthetic.catalog.scene_plan import Tile, acquisitions, overpasses
    from caco_assets.synthetic.earth.earth import Window
    from caco_assets.synthetic.earth.region import region

    here = region(0, "FR/Paris", 2.35, 48.85, 32631)
    tile = Tile("0000-Paris-631", here, Window(32631, 450_000, 5_411_040, 60, 60), (), ())
    settings = load_settings("embedded", home=tmp_path)
    time = {"gap_years": 4, "period_months": 12, "seasons": settings.imagery.seasons, "per_season": 2}

    def seen(vintage: str) -> list:
        return [look.when for look in overpasses(tile, vintage, "2026-10", **time)]

    own = seen("2026-10")
    assert own == [look.when for look in acquisitions(tile, period_windows("2026-10", 4, 12, settings.imagery.seasons), 2)]
    after = seen("2026-11")
    assert len(set(own) & set(after)) / len(after) > 0.8
    assert seen("2026-09") != own
    for vintage in ("2026-11", "2028-03"):
        early, late = period_windows(vintage, 4, 12, settings.imagery.seasons)
        assert sum(late[0][0] <= when < late[-1][1] for when in seen(vintage)) >= 2 * settings.imagery.seasons - 2
        assert all(early[0][0] <= when < early[-1][1] or late[0][0] <= when < late[-1][1] for when in seen(vintage))
