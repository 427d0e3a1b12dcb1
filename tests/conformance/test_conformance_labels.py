"""The labelling at the end of an epoch against golden numbers of the published implementation."""

from pathlib import Path

import numpy as np
import pytest

from caco_assets.pretraining.change.estimate import CHANGED, UNCHANGED, UNSEEN, label_changes


@pytest.fixture
def files(golden: Path) -> list[Path]:
    found = sorted(golden.glob("gmm*.npz"))
    assert found, f"{golden} holds no golden labels"
    return found


def test_reference_labels_are_those_of_the_published_implementation(files: list[Path]) -> None:
    for file in files:
        data = np.load(file)
        labelling = label_changes(data["ema"][:, 2], data["seen"].astype(bool), seed=None, monotone=False)
        np.testing.assert_array_equal(labelling.label, data["gmmlabel"], err_msg=file.name)


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
