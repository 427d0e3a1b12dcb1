"""Random augmentation parameters of the views of a batch, all drawn from one stream.

`cpu_renderer.py` applies them on a CPU, `gpu_renderer.py` on a GPU.
Source of the distributions: the published loaders of SeCo and CACo (random resized crop; jitter .4, .4, .4, .1 with p .8;
grayscale p .2; Gaussian blur with sigma .1 … 2 and p .5; flip p .5) and torchvision's documented algorithms for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.pretraining.views.view_plans import ViewPlan

JITTER_P, GRAYSCALE_P, BLUR_P, FLIP_P = 0.8, 0.2, 0.5, 0.5
JITTER = (0.4, 0.4, 0.4, 0.1)
"""Strength of brightness, contrast, saturation, hue: factors 1 ± strength, hue ± strength of a full circle."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of a crop."""
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Parameters:
    """Augmentation of each view of each sample; V views, B samples."""

    box: np.ndarray
    """int64 (V, B, 4): top, left, height, width of the crop. The crop is of the flipped image (crop-first plans flip after it)."""
    flip: np.ndarray
    """bool (V, B): left-right."""
    jitter: np.ndarray
    """bool (V, B): whether the four colour steps are applied."""
    order: np.ndarray
    """int64 (V, B, 4): the steps (brightness, contrast, saturation, hue = 0 … 3) in order of application."""
    factors: np.ndarray
    """float64 (V, B, 4): brightness, contrast, saturation factors, and the hue's shift in turns."""
    grayscale: np.ndarray
    """bool (V, B)."""
    sigma: np.ndarray
    """float64 (V, B): pixels; 0 means no blur."""


def draw(generator: np.random.Generator, plan: ViewPlan, batch: int, side: int, crop_scale: tuple[float, float]) -> Parameters:
    """Draw the parameters of a batch.

    Views that are not augmented get only their own crop. The stream advances by the same amount for all plan flags, so that one
    view's parameters do not depend on whether another view is augmented.

    Args:
        generator: the only source of randomness.
        plan: which views there are.
        batch: number of samples B.
        side: side of the packed images, pixels.
        crop_scale: smallest and largest share of the image's area in a crop.
    """
    shape = (len(plan.views), batch)
    augmented = np.broadcast_to(np.array([view.augment for view in plan.views])[:, None], shape)
    box = _crops(generator, shape, side, crop_scale)
    strength = np.array(JITTER)
    factors = np.array([1.0, 1.0, 1.0, 0.0]) + strength * generator.uniform(-1, 1, (*shape, 4))
    return Parameters(
        box=box,
        flip=augmented & (generator.random(shape) < FLIP_P),
        jitter=augmented & (generator.random(shape) < JITTER_P),
        order=np.argsort(generator.random((*shape, 4)), axis=-1),
        factors=factors,
        grayscale=augmented & (generator.random(shape) < GRAYSCALE_P),
        sigma=np.where(augmented & (generator.random(shape) < BLUR_P), generator.uniform(*plan.blur, shape), 0.0),
    )


def _crops(generator: np.random.Generator, shape: tuple[int, int], side: int, scale: tuple[float, float]) -> np.ndarray:
    """int64 (V, B, 4) top, left, height, width: torchvision's random resized crop on a square.

    Up to ten tries of area and log-uniform ratio; the first that fits is placed uniformly. If none fits: the whole image.
    """
    tries = (CROP_ATTEMPTS, *shape)
    area = side * side * generator.uniform(*scale, tries)
    ratio = np.exp(generator.uniform(np.log(RATIO[0]), np.log(RATIO[1]), tries))
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = np.argmax(fits, axis=0)[None]
    found = fits.any(axis=0)
    width = np.where(found, np.take_along_axis(width, first, axis=0)[0], side).astype(np.int64)
    height = np.where(found, np.take_along_axis(height, first, axis=0)[0], side).astype(np.int64)
    top = np.floor(generator.random(shape) * (side - height + 1)).astype(np.int64)
    left = np.floor(generator.random(shape) * (side - width + 1)).astype(np.int64)
    return np.stack([top, left, height, width], axis=-1)
