"""Pictures of where the places fell: their size, what they draw, and that they are the same each time."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from caco_assets.sampling import map as pictures
from caco_assets.sampling.map import DOTS, spread, world_map


def write(path, lon, lat, country, distance):
    table = {"lon": lon, "lat": lat, "country": country, "distance_km": distance, "population": np.ones(len(lon), np.int64)}
    pq.write_table(pa.table({name: pa.array(values) for name, values in table.items()}), path)
    return path


@pytest.fixture
def many(tmp_path):
    rng, count = np.random.default_rng(0), DOTS + 5000
    country = np.array([f"{a}{b}" for a in "ABCDE" for b in "ABCDEF"], object)[rng.integers(0, 30, count) // 2 * 2]
    lon, lat = rng.uniform(-10, 40, count), rng.normal(45, 5, count)
    return write(tmp_path / "many.parquet", lon, lat, country.tolist(), rng.rayleigh(50, count))


@pytest.fixture
def few(tmp_path):
    lon, lat = np.linspace(2.80, 2.83, 5), np.linspace(42.34, 42.36, 5)
    return write(tmp_path / "few.parquet", lon, lat, ["ES", "ES", "FR", "", "ES"], np.linspace(30, 40, 5))


@pytest.mark.parametrize("picture", [world_map, spread])
@pytest.mark.parametrize("places", ["many", "few"])
def test_a_picture_is_a_png_of_its_size_and_the_same_each_time(picture, places, request):
    path = request.getfixturevalue(places)
    first = picture(path)
    with Image.open(io.BytesIO(first)) as image:
        assert image.size in ((1200, 600), (1200, 540))
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    assert picture(path) == first


def drawn(monkeypatch, picture, path) -> Figure:
    """The figure instead of its bytes."""
    kept = []
    monkeypatch.setattr(pictures, "_png", lambda figure: kept.append(figure) or b"")
    picture(path)
    return kept[0]


def test_many_places_are_counted_in_cells_and_few_are_dots_with_a_close_up(monkeypatch, many, few):
    cells = drawn(monkeypatch, world_map, many)
    assert len(cells.axes) == 2  # the map and its scale
    assert np.ma.sum(cells.axes[0].images[1].get_array()) == DOTS + 5000
    dots = drawn(monkeypatch, world_map, few)
    assert [len(axes.collections[0].get_offsets()) for axes in dots.axes] == [5, 5]
    assert dots.axes[1].get_title() == "enlarged"


def test_the_spread_accounts_for_every_place(monkeypatch, few, many):
    country, latitude, distance = drawn(monkeypatch, spread, many).axes
    shares = [bar.get_width() for bar in country.patches]
    assert shares[:15] == sorted(shares[:15], reverse=True)
    assert sum(shares) == pytest.approx(100)
    assert sum(bar.get_width() for bar in latitude.containers[0]) == pytest.approx(100)
    assert distance.texts[0].get_text().startswith("half within 58")  # the median of a Rayleigh distribution is 1.18 sigma
    country, *_ = drawn(monkeypatch, spread, few).axes
    assert [label.get_text() for label in country.get_yticklabels()] == ["ES", "FR", "none"]
