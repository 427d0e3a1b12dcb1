"""A vintage against the last accepted one: what has changed too far is refused by the name of its rule; a person may overrule."""

import json

import numpy as np
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce, recorded
from caco_assets.imagery.archive.chip import encode
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, TAR, member_name, write_index, write_quarantine, write_tar
from caco_assets.imagery.geometry.chip_grid import chip_footprints, chip_grids
from caco_assets.imagery.on_record import collect
from caco_assets.resources.vintages import note_finished
from caco_assets.settings import Settings, load_settings
from caco_assets.validation.drift.drift import accept, check_drift
from caco_assets.validation.drift.statistics import covers

BANDS = ("B02", "B03", "B04", "B08")
LEVELS = np.array([500, 800, 900, 2600])
PLACES, SEASONS = 8, 4


def archive(settings: Settings, damage=lambda season, pixels: pixels, cloudy: int = 4) -> None:
    """One shard of places with grown ground; `damage(season, pixels)` changes chips, of which a quarter are of one season."""
    rng = np.random.default_rng(int(settings.vintage[-2:]))
    (grid,) = chip_grids(np.array([2.8]), np.array([42.3]), 32, 10.0)

    def make(folder) -> dict:
        folder.mkdir()
        keys = [(f"L{k:07d}", period, season) for k in range(PLACES) for period in (0, 1) for season in range(SEASONS)]
        noise = rng.normal(1, 0.2, (len(keys), 4, 32, 32)).clip(0.3)
        chips = [damage(key[2], (LEVELS[:, None, None] * part).astype(np.uint16)) for key, part in zip(keys, noise, strict=True)]
        data = [encode(pixels, BANDS, grid) for pixels in chips]
        ranges = write_tar(folder / TAR, [(member_name(*key), one) for key, one in zip(keys, data, strict=True)])
        rows = [
            {
                "location_id": place, "period": period, "season": season, "item_id": f"S2_{period}{season}", "epsg": grid.epsg,
                "datetime": "2022-01-01T10:30:00Z", "clear_fraction": 1.0, "cloud_cover": 1.0, "status": "planned",
                "offset": where[0], "length": where[1], "sha256": where[2], "lon": 2.8, "lat": 42.3,
                "geometry": chip_footprints([grid])[0],
            }
            for (place, period, season), where in zip(keys, ranges, strict=True)
        ]  # fmt: skip
        for row in rows:
            row["datetime"] = np.datetime64("2022-01-01T10:30:00").astype(object)
        write_index(folder / INDEX, rows, BANDS)
        refused = {"location_id": "L0000000", "shard": 0, "period": 0, "season": 0, "item_id": "S2_x", "reason": "cloudy"}
        write_quarantine(folder / QUARANTINE, [{**refused, "detail": "x", "clear_fraction": 0.1}] * cloudy)
        counts = dict.fromkeys(("places", "places_complete", "chips", "widened", "bytes"), 1)
        return {**counts, "clear_fraction": 1.0, "refused": {}}

    paths = settings.paths
    given = {"records": paths.records, "recipe": "1"}
    produce("locations", paths.locations, **given, inputs={}, make=lambda file: (file.write_text("x") and {"shards": 1}) or {})
    marks = {"vintage": settings.vintage, "damage": id(damage), "cloudy": cloudy}
    produce("archive/shard=0000", paths.archive / "shard=0000", **given, inputs=marks, make=make)
    collect(settings)


@pytest.fixture
def months(tmp_path):
    """Settings of the nth month of a workspace."""

    def month(number: int, **drift) -> Settings:
        imagery = {"bands": BANDS, "chip_size": 32, "seasons": SEASONS}
        validation = {"drift": drift} if drift else {}
        return load_settings("tiny", home=tmp_path, vintage=f"2026-{number:02d}", imagery=imagery, validation=validation)

    return month


def test_the_first_vintage_has_nothing_to_be_compared_with_and_the_next_is_compared_with_it(months):
    archive(months(1))
    product, result = check_drift(months(1))
    assert (product.facts["accepted"], product.facts["reference"], result.evaluated) == (True, None, 0)
    archive(months(2))
    product, result = check_drift(months(2))
    assert (product.facts["accepted"], product.facts["reference"], product.facts["findings"]) == (True, "2026-01", [])
    assert result.evaluated == 6
    assert {row["rule"] for row in product.facts["rules"]} == {"mean", "spread", "strange", "cover", "clear_sky"}
    assert all(row["holds"] and abs(row["change"]) < 0.05 for row in product.facts["rules"])
    assert recorded(months(2).paths.records, "drift").facts == product.facts
    assert check_drift(months(2))[0].reused


def brighter(by: float):
    return lambda _season, pixels: (pixels * by).astype(np.uint16)


def test_a_month_that_was_only_looked_at_does_not_become_the_measure_so_small_steps_add_up(months):
    for number, by in ((1, 1.0), (2, 1.15), (3, 1.3)):
        # these chips are all alike: any step is strange to them
        settings = months(number, strange=1.0)
        archive(settings, brighter(by))
        product, _ = check_drift(settings)
        if number == 1:
            note_finished(settings, "run", "1", promoted=True)
        if number == 2:
            assert product.facts["accepted"]
    assert product.facts["reference"] == "2026-01"
    assert any("mean" in line for line in product.facts["findings"])


def scaled(_season: int, pixels: np.ndarray) -> np.ndarray:
    return (pixels * np.array([1, 1, 1.5, 1])[:, None, None]).astype(np.uint16)


def scaled_in_one_season(season: int, pixels: np.ndarray) -> np.ndarray:
    return scaled(season, pixels) if season == 3 else pixels


def constant(season: int, pixels: np.ndarray) -> np.ndarray:
    return np.where(np.array([False, season == 3, False, False])[:, None, None], 800, pixels).astype(np.uint16)


def noisy(_season: int, pixels: np.ndarray) -> np.ndarray:
    return (pixels + 3.0 * (pixels - LEVELS[:, None, None])).clip(1, 20_000).astype(np.uint16)


def desert(_season: int, pixels: np.ndarray) -> np.ndarray:
    return pixels[[0, 1, 3, 3]]


@pytest.mark.parametrize(
    ("damage", "cloudy", "rule"),
    [
        (scaled, 4, "drift.bands.mean: the band's mean has changed by 20% at most; not so for 1 of 4: B04 = 0.5"),
        (scaled_in_one_season, 4, "drift.bands.strange: 5% of the chips at most look unlike all before; not so for 1 of 4: B04"),
        (constant, 4, "drift.bands.alive: no chip has one value everywhere in the band; not so for 1 of 4: B03 = 0.25"),
        (noisy, 4, "drift.bands.spread: the band's deviation has changed by 35% at most; not so for 4 of 4: B02"),
        (desert, 4, "drift.ground.cover: 15% of the ground at most has another cover"),
        (None, 60, "drift.ground.clear_sky: the share of clear scenes has changed by 20% of all at most"),
    ],
)
def test_damaged_data_is_refused_by_the_name_of_the_rule(months, damage, cloudy, rule):
    archive(months(1))
    check_drift(months(1))
    archive(months(2), damage or (lambda _, pixels: pixels), cloudy)
    product, result = check_drift(months(2))
    assert not product.facts["accepted"]
    assert any(line.startswith(rule) for line in product.facts["findings"]), product.facts["findings"]
    assert result.blocking_failed == product.facts["findings"]
    # the next month is compared with the last one that was accepted, not with the damage
    archive(months(3))
    assert check_drift(months(3))[0].facts["reference"] == "2026-01"


def test_what_the_rules_no_longer_accept_is_no_reference(months):
    archive(months(1))
    check_drift(months(1))
    archive(months(2), scaled)
    wide = months(2, mean=0.9, strange=1.0, spread=0.9, cover=1.0)
    assert check_drift(wide)[0].facts["accepted"]
    assert not check_drift(months(2))[0].facts["accepted"]
    archive(months(3))
    assert check_drift(months(3))[0].facts["reference"] == "2026-01"


def test_a_persons_word_holds_for_exactly_the_data_it_was_about(months):
    archive(months(1))
    check_drift(months(1))
    archive(months(2), scaled)
    check_drift(months(2))
    with pytest.raises(UserError, match="--reason: say why"):
        accept(months(2), "ana", " ")
    product = accept(months(2), "ana", "snow came early")
    assert (product.facts["accepted"], product.facts["accepted_by"], product.facts["reason"]) == (True, "ana", "snow came early")
    assert product.facts["findings"] != []
    assert check_drift(months(2))[0].facts["accepted"]
    archive(months(3), scaled)
    assert check_drift(months(3))[0].facts["reference"] == "2026-02"
    # other data of the same month is another matter
    archive(months(2), noisy)
    assert not check_drift(months(2))[0].facts["accepted"]


def test_a_warning_leaves_the_last_word_to_the_policy(months):
    archive(months(1))
    check_drift(months(1))
    archive(months(2), scaled)
    product, result = check_drift(months(2, severity="warning", mean=0.4))
    assert not product.facts["accepted"]
    assert (result.blocking_failed, len(result.warnings)) == ([], len(product.facts["findings"]))
    kept = json.loads((months(2).paths.data_docs / "results" / "drift.json").read_text())
    assert kept["warnings"] == product.facts["findings"]


def test_ground_is_told_by_its_own_colours_or_not_at_all():
    water, grown, sparse, bare = ([0.0, 0.1, 0.08, 0.02], [0, 0.06, 0.05, 0.4], [0, 0.1, 0.12, 0.24], [0, 0.15, 0.2, 0.25])
    pixels = np.array([water, grown, sparse, bare]).T[:, None, :]  # (4, 1, 4)
    assert covers(pixels, BANDS) == {"water": 1, "dense": 1, "sparse": 1, "bare": 1}
    assert covers(pixels, ("red", "green", "blue", "swir16")) == {}
