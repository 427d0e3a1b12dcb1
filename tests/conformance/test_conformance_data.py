"""The data side against the published implementation's own numbers: order, pixels, stretch, dates, and every Pillow operation.

Settings stand in the names of the entries (`sampler_seed0_n20`, `op/hue_m0p05`) and are read from there: files with other settings
pass unchanged.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caco_assets.pretraining.encoder.preprocessing import PixelFormat, Preprocessing
from caco_assets.pretraining.encoder.stretch import Stretch, published_table
from caco_assets.pretraining.loading.sampler import draw_dates, reference_pair_order
from caco_assets.pretraining.views import cpu_kernel
from caco_assets.pretraining.views.view_plans import PLANS

STORED_BANDS = re.compile(r"B(\d+A?)")


@pytest.fixture(scope="module")
def data(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "data.npz") as archive:
        return dict(archive)


def matching(data: dict[str, np.ndarray], pattern: str) -> list[tuple[re.Match[str], np.ndarray]]:
    """The entries whose whole name matches; there must be some."""
    found = [(match, value) for name, value in data.items() if (match := re.fullmatch(pattern, name))]
    assert found, f"no entry is called {pattern}"
    return found


def bands_of(name: str) -> tuple[str, ...]:
    """`B4B3B2` → (`B04`, `B03`, `B02`)."""
    return tuple(f"B{number:0>2}" for number in STORED_BANDS.findall(name))


def test_the_sampler_emits_the_published_order(data: dict[str, np.ndarray]):
    for name, order in matching(data, r"sampler_seed(\d+)_n(\d+)"):
        assert reference_pair_order(int(name[2]), int(name[1])) == order.tolist()


def test_the_tables_are_exact(data: dict[str, np.ndarray]):
    for name, tables in matching(data, r"lut_(.+)"):
        stretch = Stretch.named("seco", bands_of(name[1]))
        for low, high, expected in zip(stretch.low, stretch.high, tables, strict=True):
            assert np.array_equal(published_table(low, high), expected)


def test_files_are_read_to_within_a_jpeg_level(golden: Path, data: dict[str, np.ndarray]):
    for name, raw in matching(data, r"raw_(.+)"):
        files = [np.asarray(Image.open(golden / "tif" / f"B{band}.tif")) for band in STORED_BANDS.findall(name[1])]
        assert np.abs(np.stack(files).astype(int) - raw).max() <= 1


def test_stored_pixels_become_the_published_picture(data: dict[str, np.ndarray]):
    picture = data["normalised_rgb"]
    for name, raw in matching(data, r"raw_(.+)"):
        bands = bands_of(name[1])
        preprocessing = Preprocessing.of_pack(bands, "seco", picture.shape[0])
        # stored uint8 = reflectance × 255, so a digital number is 1/255 of reflectance
        stretched = preprocessing.stretched(raw[None], PixelFormat(bands, 1 / 255))
        assert np.array_equal(stretched[0].transpose(1, 2, 0), picture)


def test_mean_and_deviation_are_imagenets(data: dict[str, np.ndarray]):
    for name, _ in matching(data, r"raw_(.+)"):
        preprocessing = Preprocessing.of_pack(bands_of(name[1]), "seco", 224)
        np.testing.assert_allclose(preprocessing.mean, data["mean"])
        np.testing.assert_allclose(preprocessing.std, data["std"])


@pytest.mark.parametrize(("parity", "entry"), [(0, "even_index_dates"), (1, "odd_index_dates")])
def test_the_parity_of_an_index_chooses_the_period(data: dict[str, np.ndarray], parity: int, entry: str):
    # a pack's seasons of both periods in order of time: period 0 early, 1 late
    calendar = np.sort(np.concatenate([data["even_index_dates"], data["odd_index_dates"]]))
    seasons = len(data[entry])
    valid = np.ones((1, 2, seasons), bool)
    drawn = draw_dates(np.random.default_rng(0), PLANS["caco"], valid, np.full(50, parity))
    assert set(calendar[drawn].ravel()) == set(data[entry])


def planes_of(data: dict[str, np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(data["op/img"].transpose(2, 0, 1))


def number(text: str) -> float:
    """`m0p05` → −0.05."""
    return float(text.replace("m", "-").replace("p", "."))


def rows(planes: np.ndarray) -> list[np.ndarray]:
    return [plane.reshape(-1) for plane in planes]


OPERATIONS: dict[str, Callable[[np.ndarray, float], None]] = {
    "bright": lambda planes, factor: cpu_kernel.blend(planes.reshape(-1), 0, factor),
    "contrast": lambda planes, factor: cpu_kernel.blend(planes.reshape(-1), cpu_kernel.mean_level(planes, True), factor),
    "sat": lambda planes, factor: cpu_kernel.saturate(*rows(planes), factor),
    "hue": lambda planes, turns: cpu_kernel.shift_hue(*rows(planes), int(turns * 255)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_colour_operations_are_pillows(data: dict[str, np.ndarray], operation: str):
    for name, expected in matching(data, rf"op/{operation}_(m?\d+p\d+)"):
        planes = planes_of(data)
        OPERATIONS[operation](planes, number(name[1]))
        assert np.abs(planes.transpose(1, 2, 0).astype(int) - expected).max() <= 1, name[0]


def test_grayscale_is_pillows(data: dict[str, np.ndarray]):
    planes = planes_of(data)
    cpu_kernel.saturate(*rows(planes), 0.0)
    assert np.array_equal(planes.transpose(1, 2, 0), data["op/gray"])


def test_blur_is_pillows(data: dict[str, np.ndarray]):
    for name, expected in matching(data, r"op/blur_(\d+p\d+)"):
        planes = planes_of(data)
        result = np.empty_like(planes)
        for plane, target in zip(planes, result, strict=True):
            cpu_kernel.blur(plane, target, 0, plane.shape[0], 0, plane.shape[1], number(name[1]))
        assert np.array_equal(result.transpose(1, 2, 0), expected), name[0]


def cropped(image: np.ndarray, box: tuple[int, ...], size: int, flip: bool) -> np.ndarray:
    """float32 (size, size, C) in levels, through an augmented view that only flips and crops."""
    image = np.ascontiguousarray(image)
    image.setflags(write=False)
    bands = image.shape[2]
    scratch = [np.empty((bands, *image.shape[:2]), np.uint8) for _ in range(2)]
    out = np.empty((bands, size, size), np.float32)
    scale, shift = np.ones(bands, np.float32), np.zeros(bands, np.float32)
    nothing = np.bool_(False)
    order, factors = np.arange(4), np.array([1.0, 1.0, 1.0, 0.0])
    cpu_kernel.augment_then_crop(
        image, np.array(box), np.bool_(flip), nothing, order, factors, nothing, np.float64(0), True, scale, shift, *scratch, out
    )
    return out.transpose(1, 2, 0)


def test_flip_is_pillows(data: dict[str, np.ndarray]):
    side = data["op/img"].shape[0]
    assert np.array_equal(cropped(data["op/img"], (0, 0, side, side), side, flip=True), data["op/hflip"])


def test_crops_are_resized_to_within_a_level_of_pillows(data: dict[str, np.ndarray]):
    for name, expected in matching(data, r"op/rrc_t(\d+)_l(\d+)_h(\d+)_w(\d+)_o(\d+)"):
        *box, size = map(int, name.groups())
        # Pillow rounds to whole levels after each direction, we do not round at all
        assert np.abs(cropped(data["op/img"], tuple(box), size, flip=False) - expected).max() <= 1, name[0]
