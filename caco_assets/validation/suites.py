"""The Great Expectations suites of the tables of facts: every check has a name, a description and a severity.

`blocking`: everything made from the product would be wrong, so the run stops. `warning`: to be reviewed; the run continues.
"""

from __future__ import annotations

from collections.abc import Callable

from great_expectations import ExpectationSuite as Suite
from great_expectations.expectations.expectation import Expectation

from caco_assets.settings import FolderSource, Settings, Source
from caco_assets.validation import expectations
from caco_assets.validation.dark_targets import SYSTEMATIC

ROUNDING_KM = 0.001
"""Positions are rounded to 1e-6 degrees (0.11 m): two of them may get closer by at most a meter."""
FAR_FROM_CITY_SIGMAS = 6.0
"""A Gaussian in two dimensions exceeds this once in 65 million draws."""
MARGIN_OVER_RANDOM = 0.02
SCALES, OFFSETS = (1e-4,), (0.0, -0.1)
"""Reflectance per digital number and at 0, as Sentinel-2 L2A is published before and after processing baseline 04.00."""


def locations(settings: Settings) -> list[Suite]:
    """Suite of `locations.parquet`."""
    sampling = settings.sampling
    # SeCo's sampling rejects neither ocean nor overlaps, and a grid is where the user put it: there it is expected
    strict: expectations.Severity = "blocking" if sampling.strategy in ("caco", "uniform_land") else "warning"
    far = FAR_FROM_CITY_SIGMAS * sampling.sigma_km if sampling.strategy in ("caco", "gaussian_cities") else None
    return [
        Suite(
            name="locations",
            expectations=[
                expectations.rows("some", 1, "there is at least one place"),
                expectations.count("all_found", sampling.places, f"the {sampling.places} places asked for were found"),
                expectations.empty("complete", "missing_fields", "every field of a place has a value"),
                expectations.among("crs", "crs", ("EPSG:4326", "OGC:CRS84"), "the geometry is in degrees of WGS 84"),
                expectations.regex("id_format", "location_id", r"^L\d{7}$", "a place is named L and seven digits"),
                expectations.unique("id_unique", ("location_id",), "no two places have the same name"),
                expectations.between("in_order", "index_gap", 0, 0, "places are numbered in their order, without holes"),
                expectations.between("lon_on_earth", "lon", -180, 180, "longitude is within -180 and 180 degrees"),
                expectations.between("lat_on_earth", "lat", -90, 90, "latitude is within -90 and 90 degrees"),
                expectations.between("geometry_agrees", "geometry_gap_deg", 0, 1e-6, "the point is where lon and lat say"),
                expectations.true("on_land", "on_land", "the place lies on land", strict),
                expectations.true("inside_region", "inside_region", f"the place lies inside the region {sampling.region}"),
                expectations.true("outside_zones", "outside_zones", "no chip around a place meets an exclusion zone of a test set"),
                expectations.between(
                    "apart",
                    "nearest_km",
                    max(0.0, sampling.min_distance_km - ROUNDING_KM),
                    None,
                    f"the nearest other place is at least {sampling.min_distance_km} km away",
                    strict,
                ),
                expectations.between(
                    "shard_numbering", "shard_gap", 0, 0, f"each {sampling.places_per_shard} places are one shard"
                ),
                expectations.between("near_its_city", "distance_km", 0, far, "the place is near its city", "warning"),
                expectations.between("population", "population", 0, 5e7, "a city has 0 to 50 million people", "warning"),
                expectations.regex(
                    "country_code", "country", r"^(?:[A-Z]{2})?$", "the country is two capitals or empty", "warning"
                ),
            ],
        )
    ]


def _meaning_of_numbers(source: Source) -> list[Expectation]:
    """Expectations of scale and offset; the files of a folder may each say their own."""
    scales: tuple[float, ...] | None = SCALES
    offsets: tuple[float, ...] | None = OFFSETS
    if isinstance(source, FolderSource):
        scales = None if source.scale is None else (source.scale,)
        offsets = None if source.offset is None else (source.offset,)
    scale, offset = "reflectance per digital number is the provider's", "reflectance at digital number 0 is the provider's"
    return [
        expectations.among("scale_known", "scale", scales, scale)
        if scales
        else expectations.between("scale_known", "scale", 0, None, scale),
        expectations.among("offset_known", "offset", offsets, offset)
        if offsets
        else expectations.between("offset_known", "offset", None, 1, offset),
    ]


def scenes(settings: Settings) -> list[Suite]:
    """Suites of `scenes.parquet`."""
    imagery = settings.imagery
    few = f"the place has scenes for at least {imagery.min_seasons} dates of the"
    candidates = Suite(
        name="scenes",
        expectations=[
            expectations.rows("some", 1, "there is at least one row"),
            expectations.empty("complete", "missing_fields", "every field of a row that has a scene has a value"),
            expectations.true("place_known", "location_known", "the place is one of locations.parquet"),
            expectations.among("period", "period", (0, 1), "the period is 0 (early) or 1 (late)"),
            expectations.between("season", "season", 0, imagery.seasons - 1, f"the season is one of 0 to {imagery.seasons - 1}"),
            expectations.among("status", "status", ("planned", "widened", "missing"), "the status is a known value"),
            expectations.unique(
                "one_row", ("location_id", "period", "season", "rank"), "one row per place, period, season and rank"
            ),
            expectations.between("in_period", "days_outside_period", 0, 0, "the date lies in its period"),
            expectations.between(
                "in_season", "days_outside_season", 0, 0, "the date of a planned scene lies in its season's window"
            ),
            expectations.between("cloud_cover", "cloud_cover", 0, 100, "cloud cover is a percentage"),
            expectations.between(
                "cloud_limit",
                "cloud_cover",
                None,
                imagery.max_scene_cloud,
                f"no scene is cloudier than max_scene_cloud={imagery.max_scene_cloud:g} percent",
            ),
            *_meaning_of_numbers(imagery.source),
            expectations.empty(
                "offset_applied", "offset_expected", "a scene of processing baseline 04.00 or later names its offset", "warning"
            ),
            expectations.empty("bands", "bands_missing", "every wanted band has an address"),
        ],
    )
    places = Suite(
        name="scenes.places",
        expectations=[
            expectations.empty("dates_listed", "dates_absent", f"every place lists 2 periods of {imagery.seasons} seasons"),
            expectations.empty("ranks", "ranks_broken", "the candidates of a date are ranked 0, 1, 2, …"),
            expectations.between("early", "dates_early", imagery.min_seasons, None, f"{few} early period", "warning"),
            expectations.between("late", "dates_late", imagery.min_seasons, None, f"{few} late period", "warning"),
        ],
    )
    return [candidates, places]


def archive(settings: Settings) -> list[Suite]:
    """Suites of the archive and its quarantine."""
    imagery = settings.imagery
    shards = Suite(
        name="archive.shards",
        expectations=[
            expectations.rows("some", 1, "there is at least one shard"),
            expectations.empty("files", "files_missing", "a shard has chips.tar, chips.parquet and quarantine.parquet"),
        ],
    )
    chips = Suite(
        name="archive.chips",
        expectations=[
            expectations.rows("some", 1, "there is at least one chip"),
            expectations.empty("complete", "missing_fields", "every field of a chip has a value"),
            expectations.true("place_known", "location_known", "the place is one of locations.parquet"),
            expectations.between("own_shard", "shard_gap", 0, 0, "a chip lies in its place's shard"),
            expectations.unique("one_chip", ("location_id", "period", "season"), "one chip per place, period and season"),
            expectations.among("period", "period", (0, 1), "the period is 0 (early) or 1 (late)"),
            expectations.between("season", "season", 0, imagery.seasons - 1, f"the season is one of 0 to {imagery.seasons - 1}"),
            expectations.between(
                "clear", "clear_fraction", imagery.min_clear, 1, f"{imagery.min_clear:.0%} of it or more is clear"
            ),
            expectations.between("cloud_cover", "cloud_cover", 0, 100, "cloud cover is a percentage"),
            expectations.regex("sha256_format", "sha256", r"^[0-9a-f]{64}$", "the chip has a sha256"),
            expectations.between("bytes_positive", "length", 1, None, "the chip has bytes"),
            expectations.between("bytes_in_tar", "bytes_past_end", 0, 0, "the chip's bytes lie inside the tar"),
            expectations.between("bytes_own", "bytes_shared", 0, 0, "no two chips share bytes"),
            expectations.regex("utm", "epsg", r"^32[67](?:0[1-9]|[1-5]\d|60)$", "the chip is in a UTM zone of WGS 84"),
        ],
    )
    enough = f"at least {imagery.min_seasons} clear dates"
    places = Suite(
        name="archive.places",
        expectations=[
            expectations.true("explained", "explained", "a place without chips is in quarantine with a reason"),
            expectations.between("one_grid", "grids", 1, 1, "all dates of a place are on one grid"),
            expectations.between("zone", "zone_gap", 0, 1, "the chips are in the place's UTM zone or the next", "warning"),
            expectations.between(
                "dates", "dates_fewest", imagery.min_seasons, None, f"a place with chips has {enough} in both periods"
            ),
        ],
    )
    pixels = Suite(
        name="archive.pixels",
        expectations=[
            expectations.true("sha256", "sha256_matches", "the chip's bytes are those that were written"),
            expectations.empty("readable", "unreadable", "the chip is a GeoTIFF"),
            expectations.empty("layout", "layout_wrong", "the chip has the bands, size, type and grid of the settings"),
            expectations.between("nodata", "zero_share", 0, 1 - imagery.min_clear + 1e-9, "no more is nodata than may be unclear"),
            expectations.between("saturated", "saturated_share", 0, 0.01, "at most 1 % is brighter than reflectance 2", "warning"),
            expectations.between("reflectance", "median", 1, 10_000, "the median reflectance lies between 0 and 1"),
            expectations.empty("alive", "constant_bands", "no band has one value everywhere"),
        ],
    )
    shift = Suite(
        name="archive.dark_shift",
        expectations=[
            expectations.between(
                "harmonised",
                "shift",
                -SYSTEMATIC,
                SYSTEMATIC,
                f"the darkest targets of both periods agree within {SYSTEMATIC / 10_000:g} reflectance: no offset is left in one",
            ),
        ],
    )
    quarantine = Suite(
        name="archive.quarantine",
        expectations=[
            expectations.between(
                "share",
                "share",
                0,
                settings.validation.max_quarantined,
                f"at most {settings.validation.max_quarantined:.0%} of the wanted chips are lost",
            ),
            expectations.between("explained", "unexplained", 0, 0, "every wanted chip that is not there has a reason"),
            expectations.between("reasons", "reason_missing", 0, 0, "every row of the quarantine has a reason"),
            expectations.between("details", "detail_missing", 0, 0, "every row of the quarantine has a line of detail", "warning"),
        ],
    )
    return [shards, chips, places, pixels, shift, quarantine]


def pack(settings: Settings) -> list[Suite]:
    """Suites of the pack."""
    seasons, fewest = settings.imagery.seasons, settings.imagery.min_seasons
    whole = Suite(
        name="pack",
        expectations=[
            expectations.empty("complete", "fields_missing", "pack.json has all its fields"),
            expectations.empty("settings", "differs_from_settings", "bands, stretch, size and seasons are those of the settings"),
            expectations.regex("stretch_table", "stretch_table_sha256", r"^[0-9a-f]{64}$", "the stretch table has a sha256"),
            expectations.between("rows_counted", "rows_gap", 0, 0, "pack.parquet has as many rows as pack.json counts"),
            expectations.between("arrays_counted", "arrays_gap", 0, 0, "the arrays hold as many places as pack.json counts"),
        ],
    )
    files = Suite(
        name="pack.files",
        expectations=[
            expectations.rows("some", 1, "there is at least one array"),
            expectations.empty("readable", "unreadable", "the array can be opened"),
            expectations.among("dtype", "dtype", ("uint8",), "pixels are uint8"),
            expectations.empty("shape", "shape_wrong", "the array's shape is (places, 2, seasons, H, W, bands)"),
        ],
    )
    rows = Suite(
        name="pack.rows",
        expectations=[
            expectations.rows("some", 1, "there is at least one place"),
            expectations.empty("complete", "missing_fields", "every field of a row has a value"),
            expectations.unique("place_once", ("location_id",), "no place is duplicated"),
            expectations.unique("row_once", ("shard_file", "row"), "no two places share a row of an array"),
            expectations.empty("row_exists", "row_outside", "the row lies inside its array"),
            expectations.true("place_known", "location_known", "the place is one of locations.parquet"),
            expectations.among("valid_length", "valid_length", (2 * seasons,), f"the validity mask has 2·{seasons} entries"),
            expectations.between(
                "dates", "dates_fewest", fewest, None, f"the place has at least {fewest} valid dates in both periods"
            ),
            expectations.empty("alive", "constant_images", "no valid date is an image of one value"),
        ],
    )
    half = "at most half of the band's pixels lie at the"
    bands = Suite(
        name="pack.bands",
        expectations=[
            expectations.between("dark_end", "dark_end", 0, 0.5, f"{half} dark end of the stretch", "warning"),
            expectations.between("bright_end", "bright_end", 0, 0.5, f"{half} bright end of the stretch", "warning"),
        ],
    )
    return [whole, files, rows, bands]


def scores(_settings: Settings) -> list[Suite]:
    """Suites of `scores.parquet`."""
    values = Suite(
        name="scores",
        expectations=[
            expectations.rows("some", 1, "there is at least one score"),
            expectations.empty("complete", "missing_fields", "every field of a measured score has a value"),
            expectations.among("repeated", "repeated", (False,), "no score is duplicated"),
            expectations.among("status", "status", ("measured", "not_measured"), "the status is a known value"),
            expectations.among("role", "role", ("candidate", "baseline"), "the role is a known value"),
            expectations.among("protocol", "protocol", ("paper", "clean"), "the protocol is a known value"),
            expectations.between("value", "value", 0, 1, "the value lies within 0 and 1"),
            expectations.between("ci_low", "ci_low", 0, 1, "the lower end of the interval lies within 0 and 1"),
            expectations.between("ci_high", "ci_high", 0, 1, "the upper end of the interval lies within 0 and 1"),
            expectations.between("below_ci", "below_ci", 0, 0, "the value is not below its interval"),
            expectations.between("above_ci", "above_ci", 0, 0, "the value is not above its interval"),
            expectations.between("n", "n", 1, None, "the score was measured on at least one item"),
            expectations.among("reason", "reason_missing", (False,), "a task that was not measured says why"),
        ],
    )
    margins = Suite(
        name="scores.margins",
        expectations=[
            expectations.between(
                "beats_random",
                "margin",
                MARGIN_OVER_RANDOM,
                None,
                f"the candidate is at least {MARGIN_OVER_RANDOM} above the untrained encoder",
                "warning",
            ),
        ],
    )
    return [values, margins]


SUITES: dict[str, Callable[[Settings], list[Suite]]] = {
    "locations": locations,
    "scenes": scenes,
    "archive": archive,
    "pack": pack,
    "scores": scores,
}
"""Product → its suites, one for each of its tables of facts and under the same name."""
