"""The labelling at the end of an epoch against golden numbers of the published implementation."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from caco_assets.pretraining.change.estimate import CHANGED, UNCHANGED, UNSEEN, Labelling, label_changes

# Relative to the crossing. The mixture starts from fresh entropy, as published, and sums in an order of its own on each machine, so
# two fits of one set of values agree on the crossing up to rounding only (200 seeds on the golden values: to the last digit), and
# estimates pass through float32 (6e-8). 1e-6 covers both; the nearest golden slot lies 1e-2 from its crossing.
_ROUNDING = 1e-6


def crossings(mixture: NDArray[np.float64]) -> NDArray[np.float64]:
    """All points where the two components of a mixture (3, 2) are as likely: the published labels may change at each of them."""
    (weight0, weight1), (mean0, mean1), (sd0, sd1) = mixture
    square, linear = 1 / (2 * sd0**2) - 1 / (2 * sd1**2), mean1 / sd1**2 - mean0 / sd0**2
    constant = mean0**2 / (2 * sd0**2) - mean1**2 / (2 * sd1**2) + np.log(weight1 * sd0 / (weight0 * sd1))
    roots = np.roots([square, linear, constant])
    return roots[np.isreal(roots)].real


def assert_published_labels(
    labelling: Labelling, values: NDArray[np.floating], published: NDArray[np.integer], name: str = ""
) -> None:
    """All labels are the published ones, except for slots within rounding of a crossing of the components."""
    differing = np.flatnonzero(labelling.label != published)
    points = crossings(labelling.mixture)
    at_crossing = np.isclose(values[differing, None], points, rtol=_ROUNDING, atol=0).any(axis=1)
    known = (published[differing] != UNSEEN) & (labelling.label[differing] != UNSEEN)
    far = differing[~(at_crossing & known)]
    assert not len(far), f"{name}: slots {far.tolist()} differ, with estimates {values[far].tolist()}"


@pytest.fixture
def files(golden: Path) -> list[Path]:
    found = sorted(golden.glob("gmm*.npz"))
    assert found, f"{golden} holds no golden labels"
    return found


def test_reference_labels_are_those_of_the_published_implementation(files: list[Path]) -> None:
    for file in files:
        data = np.load(file)
        values = data["ema"][:, 2]
        labelling = label_changes(values, data["seen"].astype(bool), seed=None, monotone=False)
        assert_published_labels(labelling, values, data["gmmlabel"], file.name)


def test_a_label_that_differs_is_accepted_at_the_crossing_alone(files: list[Path]) -> None:
    data = np.load(files[0])
    values, seen = data["ema"][:, 2].copy(), data["seen"].astype(bool)
    labelling = label_changes(values, seen, seed=0, monotone=False)
    (slot, *_) = np.flatnonzero(seen)
    flipped = labelling.label.copy()
    flipped[slot] = CHANGED if flipped[slot] == UNCHANGED else UNCHANGED
    upper = crossings(labelling.mixture).max()
    values[slot] = upper * (1 + 0.9 * _ROUNDING)
    assert_published_labels(labelling, values, flipped)
    values[slot] = upper * (1 + 1.1 * _ROUNDING)
    with pytest.raises(AssertionError, match=rf"slots \[{slot}\] differ"):
        assert_published_labels(labelling, values, flipped)


def test_an_unseen_slot_with_a_label_is_never_accepted(files: list[Path]) -> None:
    data = np.load(files[0])
    values, seen = data["ema"][:, 2].copy(), data["seen"].astype(bool)
    labelling = label_changes(values, seen, seed=0, monotone=False)
    (slot, *_) = np.flatnonzero(seen)
    published = labelling.label.copy()
    published[slot] = UNSEEN
    values[slot] = crossings(labelling.mixture).max()
    with pytest.raises(AssertionError, match="differ"):
        assert_published_labels(labelling, values, published)


def test_default_labels_are_monotone_and_differ_only_where_the_published_ones_are_not(files: list[Path]) -> None:
    for file in files:
        data = np.load(file)
        ratio, seen, published = data["ema"][:, 2], data["seen"].astype(bool), data["gmmlabel"]
        ours = label_changes(ratio, seen, seed=0, monotone=True)
        np.testing.assert_array_equal(ours.label[~seen], UNSEEN)
        np.testing.assert_array_equal(ours.label[seen], np.where(ratio[seen] >= ours.threshold, CHANGED, UNCHANGED))
        low_mean, high_mean = ours.mixture[1]
        assert low_mean < ours.threshold < high_mean
        differing = seen & (ours.label != published)
        assert (ratio[differing] < low_mean).all()
        assert (published[differing] == CHANGED).all()
