"""Splits images for training, validation and test; without a test list, part of `train` validates and `val` is the test part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from caco_assets.downstream.datasets.classification import Part

INNER_SHARE, INNER_SEED = 0.1, 0
"""Validation share of the training images if there is no test list, and its seed. Fixed: part of the protocol."""


@dataclass(frozen=True)
class ValidationSplit[Images]:
    """Images (features, or preprocessed inputs) and labels to train and to validate on, and the name of the test part."""

    train: Images
    labels: np.ndarray
    validation: Images
    validation_labels: np.ndarray
    test: str
    has_test_list: bool


def split_for_validation[Images](
    parts: Mapping[str, Part],
    load: Callable[[str], Images],
    take: Callable[[Images, np.ndarray], Images],
    choose: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> ValidationSplit[Images]:
    """Split for a protocol that selects on validation images and reads the test part once.

    Args:
        parts: of the data set.
        load: name of a part → its images.
        take: images at the given positions.
        choose: labels of `train` → validation positions, training positions; used if there is no test list.
    """
    train, labels = load("train"), parts["train"].labels
    if "test" in parts:
        return ValidationSplit(train, labels, load("val"), parts["val"].labels, "test", has_test_list=True)
    inner, rest = choose(labels)
    return ValidationSplit(take(train, rest), labels[rest], take(train, inner), labels[inner], "val", has_test_list=False)


def positions(inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions where a mask (N,) is True, and where it is False, both in order."""
    return np.flatnonzero(inner), np.flatnonzero(~inner)
