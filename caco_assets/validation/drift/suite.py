"""The Great Expectations suites of the drift check; the thresholds are settings."""

from __future__ import annotations

from great_expectations import ExpectationSuite as Suite
from great_expectations.expectations.expectation import Expectation

from caco_assets.settings import Settings
from caco_assets.validation import expectations


def suites(settings: Settings) -> list[Suite]:
    """The suites of `drift.bands` and `drift.ground`."""
    limits = settings.validation.drift
    level = limits.severity

    def within(name: str, column: str, most: float, says: str) -> Expectation:
        return expectations.between(name, column, -most, most, says, level)

    bands = Suite(
        name="drift.bands",
        expectations=[
            within("mean", "mean_change", limits.mean, f"the band's mean has changed by {limits.mean:.0%} at most"),
            within("spread", "spread_change", limits.spread, f"the band's deviation has changed by {limits.spread:.0%} at most"),
            expectations.between(
                "strange", "strange", 0, limits.strange, f"{limits.strange:.0%} of the chips at most look unlike all before", level
            ),
            expectations.between("alive", "dead", 0, 0, "no chip has one value everywhere in the band", level),
        ],
    )
    ground = Suite(
        name="drift.ground",
        expectations=[
            within("cover", "cover_change", limits.cover, f"{limits.cover:.0%} of the ground at most has another cover"),
            within(
                "clear_sky",
                "clear_sky_change",
                limits.clear_sky,
                f"the share of clear scenes has changed by {limits.clear_sky:.0%} of all at most",
            ),
        ],
    )
    return [bands, ground]
