"""The batched device path against the compiled kernel and against Pillow, on torch's CPU device; `tests/gpu` does so on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from caco_assets.pretraining.encoder.preprocessing import RGB
from caco_assets.pretraining.views import cpu_kernel, gpu_colour, gpu_resize
from caco_assets.pretraining.views.augmentation import Parameters, draw
from caco_assets.pretraining.views.cpu_renderer import Renderer
from caco_assets.pretraining.views.gpu_renderer import DeviceRenderer
from caco_assets.pretraining.views.view_plans import PLANS

CPU = torch.device("cpu")
SIDE, BATCH = 72, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLUR_LEVELS = 4.0
"""Grey levels by which a blurred view may differ: Pillow rounds each of the six passes, which hard edges and noise show most."""


def pictures(seed: int, bands: int = 3, side: int = SIDE) -> np.ndarray:
    """Smooth random pictures with fine texture, hard edges, grays and saturated colours."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (BATCH, 6, 6, bands), dtype=np.uint8)
    smooth = [[np.asarray(Image.fromarray(image[..., c]).resize((side, side))) for c in range(bands)] for image in coarse]
    images = np.stack([np.stack(image, axis=-1) for image in smooth]).astype(int)
    images += generator.integers(-12, 13, images.shape)
    images[:, : side // 6] = generator.integers(0, 256, (side // 6, side, bands))
    images[:, side // 2 : side // 2 + 4] = generator.integers(0, 256, (4, side, 1))
    images[:, -side // 8 :, : side // 2] = 255
    return np.clip(images, 0, 255).astype(np.uint8)


def by_the_kernel(images: np.ndarray, parameters: Parameters, plan: str, size: int, bands: tuple[str, ...] = RGB) -> np.ndarray:
    """float32 (V, B, C, S, S) levels."""
    mean, std = (MEAN, STD) if bands == RGB else ((0.0,) * len(bands), (1.0,) * len(bands))
    out = np.empty((len(PLANS[plan].views), BATCH, len(bands), size, size), np.float32)
    renderer = Renderer(PLANS[plan], bands, SIDE, size, mean, std)
    for v, b in np.ndindex(out.shape[:2]):
        renderer.render(images[b], parameters, v, b, out[v, b])
    return levels(out, mean, std)


def on_the_device(images: np.ndarray, parameters: Parameters, plan: str, size: int, bands: tuple[str, ...] = RGB, **options):
    mean, std = (MEAN, STD) if bands == RGB else ((0.0,) * len(bands), (1.0,) * len(bands))
    renderer = DeviceRenderer(PLANS[plan], bands, SIDE, size, mean, std, CPU, **options)
    which = np.tile(np.arange(BATCH), (len(PLANS[plan].views), 1))
    return levels(renderer.render(torch.from_numpy(images), which, parameters).numpy(), mean, std)


def levels(views: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    return (views * np.array(std)[:, None, None] + np.array(mean)[:, None, None]) * 255


def drawn(seed: int, plan: str) -> Parameters:
    return draw(np.random.default_rng(seed), PLANS[plan], BATCH, SIDE, (0.2, 1.0))


@pytest.mark.parametrize("size", [32, 96])
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_without_blur_views_are_the_kernels_to_a_hundredth_of_a_level(size: int, seed: int):
    images, parameters = pictures(seed), drawn(seed, "caco")
    parameters = replace(parameters, sigma=np.zeros_like(parameters.sigma))
    difference = np.abs(on_the_device(images, parameters, "caco", size) - by_the_kernel(images, parameters, "caco", size))
    assert difference.max() < 0.01


@pytest.mark.parametrize("size", [32, 96])
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_with_blur_views_are_the_kernels_to_a_few_levels_at_hard_edges(size: int, seed: int):
    images, parameters = pictures(seed), drawn(seed, "caco")
    difference = np.abs(on_the_device(images, parameters, "caco", size) - by_the_kernel(images, parameters, "caco", size))
    assert difference.max() < BLUR_LEVELS
    assert difference.mean() < 0.2


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_views_that_are_cropped_first_are_the_kernels_but_for_ties_of_the_rounding(seed: int):
    images, parameters = pictures(seed), drawn(seed, "moco")
    parameters = replace(parameters, sigma=np.zeros_like(parameters.sigma))
    difference = np.abs(on_the_device(images, parameters, "moco", 40) - by_the_kernel(images, parameters, "moco", 40))
    # a level that the resize rounds the other way goes through the colour steps: it is spread, and may move the mean about which
    # contrast turns, which moves a whole view by one level
    assert difference.mean() < 0.1
    assert (difference > 1.01).mean() < 0.02
    assert difference.max() < 16


def test_views_that_are_cropped_first_are_blurred_and_turned_last():
    images, parameters = pictures(5), drawn(5, "moco")
    everyone = np.ones_like(parameters.flip)
    parameters = replace(parameters, jitter=~everyone, grayscale=~everyone, flip=everyone, sigma=np.full(everyone.shape, 1.7))
    difference = np.abs(on_the_device(images, parameters, "moco", 40) - by_the_kernel(images, parameters, "moco", 40))
    assert difference.max() < BLUR_LEVELS


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), sigma=st.floats(0.1, 2.0))
def test_blur_is_pillows_but_for_its_rounding(seed: int, sigma: float):
    image = pictures(seed)[0]
    weights = torch.from_numpy(gpu_resize.blur_weights(np.array([sigma])))
    matrix = gpu_resize.blur_matrix(weights, gpu_resize.box_basis(SIDE, CPU))
    planes = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    blurred = torch.stack(gpu_resize.apply(matrix, matrix, planes), dim=1)[0].permute(1, 2, 0).numpy()
    difference = np.abs(blurred - np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))))
    assert difference.max() < BLUR_LEVELS
    assert difference.mean() < 1  # a small sigma moves levels by less than a half, which Pillow's rounding undoes


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), shift=st.integers(-25, 25))
def test_hue_is_the_kernels_in_every_colour(seed: int, shift: int):
    image = np.random.default_rng(seed).integers(0, 256, (1, 3, 16, 256), dtype=np.uint8)
    turned = gpu_colour.hue(torch.from_numpy(image).float(), torch.full((1, 1, 1, 1), float(shift)))
    planes = image[0].copy()
    cpu_kernel.shift_hue(*(plane.reshape(-1) for plane in planes), shift)
    assert np.array_equal(turned[0].numpy(), planes)


def test_bands_that_are_no_colours_get_brightness_and_contrast_only():
    bands = ("B08", "B04", "B11", "B12")
    images, parameters = pictures(2, bands=4), drawn(2, "caco")
    everyone = np.ones_like(parameters.flip)
    parameters = replace(parameters, jitter=everyone, grayscale=everyone, sigma=np.zeros(everyone.shape))
    slow = by_the_kernel(images, parameters, "caco", 48, bands)
    assert np.abs(on_the_device(images, parameters, "caco", 48, bands) - slow).max() < 0.01


def test_chunks_do_not_change_the_views():
    images, parameters = pictures(3), drawn(3, "caco")
    small = on_the_device(images, parameters, "caco", 32, chunk_bytes=5 * 4 * 3 * SIDE**2)
    np.testing.assert_allclose(small, on_the_device(images, parameters, "caco", 32), atol=1e-3)


def test_half_precision_costs_half_a_level():
    images, parameters = pictures(4), drawn(4, "caco")
    renderer = DeviceRenderer(PLANS["caco"], RGB, SIDE, 40, MEAN, STD, CPU, dtype=torch.float16)
    which = np.tile(np.arange(BATCH), (4, 1))
    views = levels(renderer.render(torch.from_numpy(images), which, parameters).numpy(), MEAN, STD)
    assert np.abs(views - on_the_device(images, parameters, "caco", 40)).max() < 0.5


def test_a_fused_colour_operation_is_the_same():
    planes = torch.from_numpy(pictures(6)).permute(0, 3, 1, 2).float()
    shift = torch.arange(BATCH).float()[:, None, None, None]
    assert torch.equal(
        torch.compile(gpu_colour.hue, dynamic=True, backend="aot_eager")(planes, shift), gpu_colour.hue(planes, shift)
    )


@pytest.mark.slow
def test_fused_colours_are_the_same():
    images, parameters = pictures(6), drawn(6, "caco")
    fused = on_the_device(images, parameters, "caco", 32, compiled=True, backend="aot_eager")
    np.testing.assert_allclose(fused, on_the_device(images, parameters, "caco", 32), atol=1e-3)
