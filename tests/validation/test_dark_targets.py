"""A period whose offset was forgotten, or taken off twice, stands out; change of the land and bad dates do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.archive.shard import iter_chips
from caco_assets.imagery.on_record import ingest_shard, plan
from caco_assets.validation.dark_targets import SYSTEMATIC, dark_level, dark_shift
from caco_assets.validation.stage import validate

BANDS = 4


def levels(places: int, seasons: int = 5, seed: int = 0) -> dict:
    """Dark levels of places whose seasons differ by more than their years."""
    dice = np.random.default_rng(seed)
    found = {}
    for place in range(places):
        base = dice.uniform(100, 1500, (seasons, BANDS))
        for period in (0, 1):
            for season in range(seasons):
                found[f"L{place}", period, season] = base[season] + dice.normal(0, 80, BANDS)
    return found


@given(st.integers(0, 1000), st.integers(5, 40))
def test_periods_that_mean_the_same_agree(seed, places):
    shift, compared = dark_shift(levels(places, seed=seed))
    assert compared == places
    assert np.abs(shift).max() < SYSTEMATIC / 2


@given(st.integers(0, 1000), st.sampled_from([-1000.0, 1000.0]), st.sampled_from([0, 1]))
def test_an_offset_in_one_period_stands_out_in_every_band(seed, offset, period):
    found = {key: level + offset * (key[1] == period) for key, level in levels(20, seed=seed).items()}
    shift, _ = dark_shift(found)
    assert (np.abs(shift) > 2 * SYSTEMATIC).all()
    assert (np.sign(shift) == (1 if period else -1) * np.sign(offset)).all()


def test_changed_places_hazy_dates_and_missing_seasons_do_not_count():
    found = levels(20)
    for place in range(6):  # cleared, flooded
        for season in range(5):
            found[f"L{place}", 1, season] = found[f"L{place}", 1, season] + 2500 * (-1) ** place
    for place in range(20):
        found[f"L{place}", place % 2, place % 5] = found[f"L{place}", place % 2, place % 5] + 1200
        del found[f"L{place}", 1, (place + 1) % 5]
    shift, compared = dark_shift(found)
    assert compared == 20
    assert np.abs(shift).max() < SYSTEMATIC


def test_where_nothing_can_be_compared_nothing_is_said():
    assert dark_shift({}) == (pytest.approx([]), 0)
    assert dark_shift({("L0", 0, 1): np.ones(2), ("L0", 1, 2): np.ones(2)})[1] == 0
    shift, compared = dark_shift({("L0", period, 0): np.array([np.nan, 5.0]) for period in (0, 1)})
    assert (np.isnan(shift).tolist(), shift[1], compared) == ([True, False], 0.0, 1)


def test_the_dark_level_leaves_out_holes_and_single_defects():
    pixels = np.full((2, 64, 64), 900, np.uint16)
    pixels[0, :10] = 0
    pixels[0, 20, :5] = 1
    pixels[1] = 0
    assert dark_level(pixels)[0] == 900
    assert np.isnan(dark_level(pixels)[1])


@pytest.fixture
def blocked(six_dates, tiny_earth, over):
    """Findings on an archive of scenes whose items say an offset that is not theirs: date → what they say."""

    def make(home: str, lies: dict[str, float]) -> list[str]:
        for item in tiny_earth.items:
            date = item["id"].removeprefix("S2_")
            for asset in item["assets"].values():
                for raster in asset.get("raster:bands", []):
                    raster["offset"] = lies.get(date[:4], raster["offset"])
        settings = over(tiny_earth.write(), home=home)
        plan(settings)
        for shard in (0, 1):
            ingest_shard(settings, shard)
        from caco_assets.imagery.on_record import collect

        collect(settings)
        assert len(list(iter_chips(settings.paths.archive))) == 24
        return [line for line in validate(settings, "archive").blocking_failed if "dark_shift" in line]

    return make


def test_a_period_harmonised_wrongly_blocks_the_archive(blocked):
    assert blocked("right", {}) == []
    # the late period's numbers carry the offset: forgotten, and taken off twice
    [line] = blocked("forgotten", {"2025": 0.0, "2026": 0.0})
    assert "no offset is left in one" in line
    assert len(blocked("twice", {"2025": -0.2, "2026": -0.2})) == 1
