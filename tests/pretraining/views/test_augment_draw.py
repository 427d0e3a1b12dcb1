"""The random choices: their distributions, their bounds, their independence of everything but the stream."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from caco_assets.pretraining.views.augmentation import Parameters, draw
from caco_assets.pretraining.views.view_plans import PLANS

AUGMENTED = [False, True, False, True]
N = 4_000


@pytest.fixture(scope="module")
def many() -> Parameters:
    return draw(np.random.default_rng(0), PLANS["caco"], N, 264, (0.2, 1.0))


@given(st.integers(0, 2**31), st.integers(8, 300), st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)).map(sorted))
def test_crops_lie_inside_the_image(seed: int, side: int, scale: list[float]):
    box = draw(np.random.default_rng(seed), PLANS["caco"], 20, side, (scale[0], scale[1])).box
    top, left, height, width = np.moveaxis(box, -1, 0)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height > 0).all()
    assert (width > 0).all()
    assert (top + height <= side).all()
    assert (left + width <= side).all()


def test_crops_are_distributed_as_torchvisions(many: Parameters):
    import torch
    from torchvision.transforms import RandomResizedCrop

    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(3, 264, 264)
        slow = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(N)])
    for column in range(4):
        assert stats.ks_2samp(many.box[0, :, column], slow[:, column]).pvalue > 1e-3
    assert stats.ks_2samp(many.box[0, :, 2] * many.box[0, :, 3], slow[:, 2] * slow[:, 3]).pvalue > 1e-3


def test_only_augmented_views_are_distorted(many: Parameters):
    for name in ("flip", "jitter", "grayscale", "sigma"):
        assert getattr(many, name).any(axis=1).tolist() == AUGMENTED


def test_every_view_has_a_crop_of_its_own(many: Parameters):
    assert all((many.box[i] != many.box[j]).any(axis=1).mean() > 0.9 for i in range(4) for j in range(i))


def test_probabilities_are_the_published_ones(many: Parameters):
    for name, p in (("flip", 0.5), ("jitter", 0.8), ("grayscale", 0.2), ("sigma", 0.5)):
        share = (getattr(many, name)[1] > 0).mean()
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / N)


def test_strengths_are_the_published_ones(many: Parameters):
    for column, (low, high) in enumerate([(0.6, 1.4)] * 3 + [(-0.1, 0.1)]):
        assert stats.kstest(many.factors[1, :, column], stats.uniform(low, high - low).cdf).pvalue > 1e-3
    sigma = many.sigma[1][many.sigma[1] > 0]
    assert stats.kstest(sigma, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_all_orders_of_the_jitter_are_as_likely(many: Parameters):
    orders, counts = np.unique(many.order[1], axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_stream_alone_decides():
    first, again, other = (draw(np.random.default_rng(seed), PLANS["caco"], 8, 64, (0.2, 1.0)) for seed in (1, 1, 2))
    for field in fields(Parameters):
        assert np.array_equal(getattr(first, field.name), getattr(again, field.name))
        assert not np.array_equal(getattr(first, field.name), getattr(other, field.name))


def test_the_plan_says_how_much_is_blurred():
    from dataclasses import replace

    sigma = draw(np.random.default_rng(0), replace(PLANS["moco"], blur=(0.3, 0.6)), 200, 64, (0.2, 1.0)).sigma
    blurred = sigma[sigma > 0]
    assert 0.3 <= blurred.min() < 0.35
    assert 0.55 < blurred.max() <= 0.6
    assert 0.4 < len(blurred) / sigma.size < 0.6
