import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from caco_assets.sampling.region import in_box
from caco_assets.sampling.sphere import EARTH_RADIUS_KM, Spacing, destination, distance_km, unit_vectors
from caco_assets.sampling.streams import BATCH, WORLD, city_stream, grid_stream, uniform_stream

longitudes = st.floats(-180, 179.999)
latitudes = st.floats(-89, 89)


@given(longitudes, latitudes, st.floats(0, 2 * np.pi), st.floats(0, 2000))
def test_the_destination_lies_at_the_asked_distance(lon, lat, bearing, distance):
    there = destination(*(np.array([value]) for value in (lon, lat, bearing, distance)))
    assert -180 <= there[0][0] < 180
    assert distance_km(np.array([lon]), np.array([lat]), *there)[0] == pytest.approx(distance, abs=1e-5)


@given(longitudes, latitudes, longitudes, latitudes)
def test_the_chord_and_the_haversine_agree(lon, lat, other_lon, other_lat):
    one, two = unit_vectors(np.array([lon, other_lon]), np.array([lat, other_lat]))
    along = 2 * EARTH_RADIUS_KM * np.arcsin(np.linalg.norm(one - two) / 2)
    expected = distance_km(np.array([lon]), np.array([lat]), np.array([other_lon]), np.array([other_lat]))[0]
    assert along == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("lon", "lat"), [(0.0, 0.0), (179.99, 65.0), (-30.0, -70.0)])
def test_steps_around_a_city_are_gaussian_on_the_sphere(lon, lat):
    sigma = 50.0
    there_lon, there_lat, city = next(city_stream(np.random.default_rng(3), np.array([lon]), np.array([lat]), sigma))
    assert (city == 0).all()
    distance = distance_km(np.full(BATCH, lon), np.full(BATCH, lat), there_lon, there_lat)
    assert stats.kstest(distance, stats.rayleigh(scale=sigma).cdf).pvalue > 0.01
    north = np.radians(there_lat - lat) * EARTH_RADIUS_KM
    east = np.radians((there_lon - lon + 180) % 360 - 180) * np.cos(np.radians(there_lat)) * EARTH_RADIUS_KM
    # meridians converge, so the flat picture is only nearly normal far from the equator
    assert np.std(north) == pytest.approx(sigma, rel=0.03)
    assert np.std(east) == pytest.approx(sigma, rel=0.03)


def test_each_city_is_drawn_equally_often():
    _, _, city = next(city_stream(np.random.default_rng(0), np.arange(8.0), np.zeros(8), 1.0))
    assert stats.chisquare(np.bincount(city, minlength=8)).pvalue > 0.01


def test_a_heavier_city_is_drawn_in_proportion():
    weights = np.array([1.0, 0.0, 3.0, 4.0])
    _, _, city = next(city_stream(np.random.default_rng(0), np.arange(4.0), np.zeros(4), 1.0, weights))
    counts = np.bincount(city, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], BATCH * weights[[0, 2, 3]] / 8).pvalue > 0.01


@pytest.mark.parametrize("lat", [0.0, 60.0, -85.0])
def test_the_bearing_of_a_step_is_uniform(lat):
    there_lon, there_lat, _ = next(city_stream(np.random.default_rng(5), np.array([179.9]), np.array([lat]), 50.0))
    middle, there = unit_vectors(np.array([179.9]), np.array([lat]))[0], unit_vectors(there_lon, there_lat)
    east = np.array([-np.sin(np.radians(179.9)), np.cos(np.radians(179.9)), 0.0])
    angle = np.arctan2(there @ east, there @ np.cross(middle, east)) % (2 * np.pi)
    assert stats.kstest(angle, stats.uniform(0, 2 * np.pi).cdf).pvalue > 0.01


def test_uniform_candidates_have_equal_density_on_the_sphere():
    lon, lat, _ = next(uniform_stream(np.random.default_rng(1), None))
    assert stats.kstest(np.sin(np.radians(lat)), stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(lon, stats.uniform(-180, 360).cdf).pvalue > 0.01


def test_each_band_of_latitude_gets_its_share_of_the_area():
    edges = np.arange(-90, 91, 15)
    stream = uniform_stream(np.random.default_rng(2), None)
    found = np.histogram(np.concatenate([next(stream)[1] for _ in range(4)]), edges)[0]
    share = np.diff(np.sin(np.radians(edges))) / 2
    assert stats.chisquare(found, share * found.sum()).pvalue > 0.01


def grid(box, spacing, most=3000):
    lons, lats, count = [], [], 0
    for lon, lat, _ in grid_stream(box, spacing):
        lons.append(lon)
        lats.append(lat)
        count += len(lon)
        if count >= most:
            break
    return np.concatenate(lons), np.concatenate(lats)


def closest_km(lon, lat):
    from scipy.spatial import KDTree

    points = unit_vectors(lon, lat)
    index = KDTree(points).query(points, k=2)[1][:, 1]
    return distance_km(lon, lat, lon[index], lat[index])


boxes = st.one_of(
    st.sampled_from([WORLD, (-180.0, 60.0, 180.0, 90.0), (170.0, -10.0, -170.0, 10.0), (10.0, 80.0, 5.0, 90.0)]),
    st.tuples(st.floats(-180, 180), st.floats(-90, 80), st.floats(-180, 180), st.floats(0.1, 170)).map(
        lambda values: (values[0], values[1], values[2], min(values[1] + values[3], 90.0))
    ),
)


@given(boxes, st.floats(20, 3000))
@example((170.0, 0.0, 180.0, 1.0), 20.0)
@example((180.0, 0.0, 180.0, 1.0), 20.0)
def test_grid_points_keep_their_distance_across_antimeridian_and_poles(box, spacing):
    lon, lat = grid(box, spacing)
    # rounded, a longitude may lie a hair outside of its edge
    assert in_box(box, lon, lat).all() or in_box((box[0] - 1e-9, box[1] - 1e-9, box[2] + 1e-9, box[3] + 1e-9), lon, lat).all()
    if len(lon) > 1:
        assert closest_km(lon, lat).min() >= spacing * (1 - 1e-9)


def test_the_grid_covers_the_sphere_evenly():
    lon, lat = grid(WORLD, 300.0, most=10**9)
    area = 4 * np.pi * EARTH_RADIUS_KM**2
    assert len(lon) == pytest.approx(area / 300.0**2, rel=0.02)
    north = (lat > 30).sum() / len(lat)
    assert north == pytest.approx(0.25, abs=0.01)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(180.0, 0.0), (-180.0, -50.0), (0.0, 90.0), (77.0, -90.0)]))
def test_spacing_holds_across_the_antimeridian_and_at_the_poles(seed, centre):
    count, rng = 2000, np.random.default_rng(seed)
    lon, lat = destination(
        np.full(count, centre[0]), np.full(count, centre[1]), rng.uniform(0, 2 * np.pi, count), rng.rayleigh(30, count)
    )
    kept = Spacing(5.0).accept(unit_vectors(lon, lat))
    assert 20 < kept.sum() < 1000
    assert closest_km(lon[kept], lat[kept]).min() >= 5.0 - 1e-9


def test_uniform_candidates_stay_in_a_region_across_the_antimeridian():
    region = (170.0, -20.0, -170.0, 10.0)
    lon, lat, _ = next(uniform_stream(np.random.default_rng(1), region))
    assert in_box(region, lon, lat).all()
    assert (lon > 0).any()
    assert (lon < 0).any()


def one_by_one(points: np.ndarray, lon: np.ndarray, lat: np.ndarray, reach: float) -> list[bool]:
    """The obvious version: compare each with every accepted one before it."""
    accepted: list[int] = []
    fate = []
    for index in range(len(points)):
        others = np.array(accepted, int)
        near = distance_km(np.full(len(others), lon[index]), np.full(len(others), lat[index]), lon[others], lat[others])
        fate.append(bool((near >= reach).all()))
        if fate[-1]:
            accepted.append(index)
    return fate


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 40), st.sampled_from([(0.0, 0.0), (180.0, 10.0), (20.0, 89.9)]))
def test_spacing_accepts_what_a_comparison_one_by_one_accepts(seed, reach, centre):
    rng = np.random.default_rng(seed)
    count = 300
    lon, lat = destination(
        np.full(count, centre[0]), np.full(count, centre[1]), rng.uniform(0, 2 * np.pi, count), rng.rayleigh(60, count)
    )
    points = unit_vectors(lon, lat)
    spacing = Spacing(reach)
    fate = np.concatenate([spacing.accept(part) for part in np.array_split(points, 4)])
    assert fate.tolist() == one_by_one(points, lon, lat, reach)


def test_a_crowded_city_does_not_blow_up():
    rng = np.random.default_rng(0)
    points = unit_vectors(*destination(np.zeros(BATCH), np.zeros(BATCH), rng.uniform(0, 6, BATCH), rng.rayleigh(1, BATCH)))
    assert 5 < Spacing(1.0).accept(points).sum() < 60


def test_no_distance_rejects_nothing():
    assert Spacing(0).accept(unit_vectors(np.zeros(3), np.zeros(3))).all()
