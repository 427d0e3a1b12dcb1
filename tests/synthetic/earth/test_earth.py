"""The generator: repeatable, seamless, arranged, seasonal, and honest about what has changed."""

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from pyproj import Transformer

from caco_assets.synthetic.earth import phenology, terrain, weather
from caco_assets.synthetic.earth.change import Event, event_for, marked
from caco_assets.synthetic.earth.earth import BASELINE_0400, GSD, Earth, Window, digital_numbers
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import CLASSES, INDUSTRIAL, RESIDENTIAL, SEALAKE, Region, region
from caco_assets.synthetic.earth.utm import epsg_of, project

JUNE = datetime(2022, 6, 20, 10, 40, tzinfo=UTC)
GOLDEN = {"B02": 8167534, "B08": 10760468, "B12": 2613463}
EARLY, LATE = datetime(2022, 6, 20, 10, 40, tzinfo=UTC), datetime(2026, 6, 20, 10, 40, tzinfo=UTC)


@pytest.fixture(scope="module")
def spain() -> Region:
    return region(0, "ES/Figueres", 2.96, 42.27)


def window(here: Region, east: int = -480, north: int = 480, size: int = 96) -> Window:
    return Window(here.epsg, here.origin[0] + east, here.origin[1] + north, size, size)


def test_the_same_window_has_the_same_pixels_in_another_earth_object(spain: Region) -> None:
    look = weather.acquisition(spain, JUNE, "partly")
    one, two = (Earth(spain).render(window(spain), look) for _ in range(2))
    for band in GSD:
        np.testing.assert_array_equal(one.bands[band], two.bands[band])
    np.testing.assert_array_equal(one.scl, two.scl)


def test_overlapping_windows_agree_in_every_band_where_they_overlap(spain: Region) -> None:
    look = weather.acquisition(spain, JUNE, "partly")
    large = Earth(spain).render(window(spain, size=120), look)
    small = Earth(spain).render(window(spain, east=-480 + 360, north=480 - 240, size=60), look)
    for band, gsd in GSD.items():
        row, col, side = 240 // gsd, 360 // gsd, 600 // gsd
        np.testing.assert_array_equal(large.bands[band][row : row + side, col : col + side], small.bands[band])
    np.testing.assert_array_equal(large.scl[12:42, 18:48], small.scl)


def test_another_seed_and_another_city_give_another_world(spain: Region) -> None:
    look = weather.acquisition(spain, JUNE)
    base = Earth(spain).render(window(spain), look).bands["B04"]
    for other in (region(1, "ES/Figueres", 2.96, 42.27), region(0, "ES/Girona", 2.96, 42.27)):
        assert not np.array_equal(base, Earth(other).render(window(other), weather.acquisition(other, JUNE)).bands["B04"])


def test_golden_pixels_have_not_moved() -> None:
    """The sum of one small picture: a change of it changes every data set, so it must be meant (and raise the recipe)."""
    here = region(0, "golden", 2.96, 42.27)
    image = Earth(here).render(window(here, size=60), weather.acquisition(here, JUNE))
    numbers = {band: int(digital_numbers(image.bands[band], JUNE).astype(np.int64).sum()) for band in ("B02", "B08", "B12")}
    assert numbers == GOLDEN


def test_all_ten_classes_occur_around_a_few_cities() -> None:
    frame = Frame(np.arange(-300, 300, 4), np.arange(-300, 300, 4))
    seen = set()
    for number in range(8):
        seen |= set(np.unique(terrain.survey(region(0, f"c{number}", 10.0, 45.0), frame).cover).tolist())
    assert seen == set(range(len(CLASSES)))


def test_towns_lie_at_the_centre_and_the_country_around() -> None:
    ring = Frame(np.arange(-500, 500, 5), np.arange(-500, 500, 5))
    near, far = [], []
    for number in range(6):
        here = region(0, f"c{number}", 10.0, 48.0)
        land = terrain.survey(here, ring)
        built = np.isin(land.cover, (RESIDENTIAL, INDUSTRIAL))[land.cover != SEALAKE]
        centre = land.centre[land.cover != SEALAKE]
        near.append(built[centre < 0.5].mean())
        far.append(built[centre > 2.5].mean())
    assert np.mean(near) > 0.6 > 0.25 > np.mean(far)


def test_the_north_has_more_forest_and_the_south_more_orchards() -> None:
    north, south = ([region(0, f"c{k}", 10.0, lat).open_land for k in range(40)] for lat in (63.0, 38.0))
    forest, orchards = 1, 4
    assert np.mean([land[forest] for land in north]) > 2 * np.mean([land[forest] for land in south])
    assert np.mean([land[orchards] for land in south]) > 2 * np.mean([land[orchards] for land in north])


def test_leaves_are_out_in_summer_on_both_hemispheres() -> None:
    january, july = datetime(2022, 1, 15, tzinfo=UTC), datetime(2022, 7, 15, tzinfo=UTC)
    north, south = region(0, "n", 10.0, 51.0), region(0, "s", 10.0, -51.0)
    day = phenology.day_of_season
    assert phenology.leaves(north, day(north, july)) > 0.9 > 0.1 > phenology.leaves(north, day(north, january))
    assert phenology.leaves(south, day(south, january)) > 0.9 > 0.1 > phenology.leaves(south, day(south, july))


def test_the_tropics_stay_green_all_year() -> None:
    here = region(0, "t", 10.0, 2.0)
    assert min(float(phenology.leaves(here, day)) for day in range(0, 365, 10)) > 0.8


def test_crops_rotate_between_years_and_that_is_no_change_of_cover(spain: Region) -> None:
    first, second = phenology.crops(spain, 256, 2022), phenology.crops(spain, 256, 2026)
    assert 0.3 < np.mean(first != second) < 0.95
    earth = Earth(spain)
    np.testing.assert_array_equal(earth.cover(window(spain), EARLY), earth.cover(window(spain), LATE))


def test_the_change_mask_is_the_difference_of_the_covers(spain: Region) -> None:
    event = event_for(spain, (0.0, 0.0), 960.0, 5, (datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)))
    assert event is not None
    earth, here = Earth(spain, (event,)), window(spain)
    early, late = earth.cover(here, EARLY), earth.cover(here, LATE)
    mask = earth.view(here).event() > 0
    assert 0.02 < mask.mean() < 0.5
    np.testing.assert_array_equal(mask, early != late)
    assert set(np.unique(early[mask]).tolist()) <= set(event.rule.affects)
    assert set(np.unique(late[mask]).tolist()) == {event.rule.becomes}


def test_outside_the_change_the_pixels_are_those_of_an_earth_without_it(spain: Region) -> None:
    event = Event("quarry", 0.0, 0.0, 150.0, datetime(2024, 1, 1, tzinfo=UTC), 7)
    look = weather.acquisition(spain, LATE)
    plain, changed = (Earth(spain, events).render(window(spain), look).bands["B04"] for events in ((), (event,)))
    distance = np.hypot(*np.meshgrid(np.arange(96) - 48, np.arange(96) - 48))
    np.testing.assert_array_equal(plain[distance > 30], changed[distance > 30])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [7, 100, 384])
def test_of_any_number_of_places_the_wanted_share_is_marked(share: float, count: int) -> None:
    assert abs(sum(marked(3, index, share) for index in range(count)) - share * count) <= 1


def test_the_offset_of_1000_starts_with_baseline_0400() -> None:
    from datetime import timedelta

    reflectance = np.array([[0.1234]], np.float32)
    assert digital_numbers(reflectance, BASELINE_0400 - timedelta(days=1)).item() == 1234
    assert digital_numbers(reflectance, BASELINE_0400).item() == 2234


def test_nodata_is_zero_and_nothing_else_is() -> None:
    reflectance = np.array([[-0.5, 0.0, 0.2]], np.float32)
    numbers = digital_numbers(reflectance, datetime(2020, 1, 1, tzinfo=UTC), np.array([[False, False, True]]))
    assert numbers.tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("sky", ["clear", "partly", "overcast"])
def test_the_sky_around_the_city_is_as_cloudy_as_wanted(spain: Region, sky: weather.Sky) -> None:
    look = weather.acquisition(spain, JUNE, sky)
    frame = Frame(np.arange(-640, 640, 4), np.arange(-640, 640, 4))
    assert np.mean(weather.air(look, frame).cloud > 0) == pytest.approx(look.cloud, abs=0.02)


def test_cloud_cover_counts_the_cloud_classes_of_the_scene(spain: Region) -> None:
    image = Earth(spain).render(window(spain, size=240), weather.acquisition(spain, JUNE, "partly"))
    assert image.cloud_cover == pytest.approx(100 * np.isin(image.scl, (8, 9, 10)).mean())


def test_shadows_lie_on_the_far_side_of_the_sun(spain: Region) -> None:
    """A cloud's mask moved away from the sun covers its shadow."""
    look = weather.acquisition(spain, datetime(2022, 2, 3, 10, 40, tzinfo=UTC), "partly")
    frame = Frame(np.arange(-300, 300), np.arange(-300, 300))
    air = weather.air(look, frame)
    assert look.sun_azimuth < 180
    assert (air.shadow > 0.5).any()
    best, shift = -1.0, (0, 0)
    for south in range(-240, 241, 20):
        for east in range(-240, 241, 20):
            moved = np.roll(air.cloud > 0.5, (south, east), (0, 1)) & (air.cloud < 0.1)
            score = float((moved & (air.shadow > 0.5)).sum() / max(1, (moved | (air.shadow > 0.5)).sum()))
            best, shift = max((best, shift), (score, (south, east)))
    assert max(shift) < 0  # the morning sun stands in the south-east: shadows fall to the north-west


@pytest.mark.parametrize(("lon", "lat"), [(2.8, 42.3), (-58.4, -34.6), (179.9, 10.0), (-179.9, -17.0), (10.0, 70.0), (37.6, 55.7)])
def test_the_projection_agrees_with_proj_to_a_millimetre(lon: float, lat: float) -> None:
    epsg = epsg_of(lon, lat)
    expected = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    assert project(lon, lat, epsg) == pytest.approx(expected, abs=1e-3)


def test_a_window_off_the_60_m_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 60 m"):
        Window(32631, 10.0, 0.0, 60, 60)


def test_the_generator_needs_numpy_alone() -> None:
    code = (
        "import sys, caco_assets.synthetic.earth.earth, caco_assets.synthetic.earth.change\n"
        "heavy = {'rasterio', 'geopandas', 'torch', 'scipy', 'pandas', 'shapely', 'pyproj', 'pystac'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
