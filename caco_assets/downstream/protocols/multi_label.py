"""The protocols for images with several labels: `clean` (validated) and `paper` (as published on BigEarthNet)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.metrics.outcomes import MultiLabel
from caco_assets.downstream.probes.linear_knn import Scaler
from caco_assets.downstream.probes.multilabel import fit_independent_validated, fit_soft_margin_adam, knn_shares, taken
from caco_assets.downstream.protocols.evaluation import Evaluation, Measurement
from caco_assets.downstream.protocols.validation_split import INNER_SEED, INNER_SHARE, positions, split_for_validation
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import RGB, Preprocessing
from caco_assets.pretraining.encoder.stretch import Stretch

KNN = (5, 20)
# Seed of the choice of training images in `paper`, as in the reference.
_SHARE_SEED = 42
# What the published pipeline stretches to 0 … 255, as reflectance × 10 000: mean ± 2 deviations of B04, B03, B02 over BigEarthNet.
_LOW, _HIGH = (-761, -552, -715), (1942, 1780, 1575)


def clean(evaluation: Evaluation) -> Iterator[Measurement]:
    """A logistic regression for each class with one validated C, and nearest neighbours; the test part is read once."""
    parts = evaluation.data.parts
    split = split_for_validation(parts, evaluation.features_of, np.ndarray.__getitem__, _share)
    how = "C chosen on val by macro average precision, tested on test"
    if not split.has_test_list:
        how = f"no test list: C chosen on a seeded {INNER_SHARE:.0%} of train, tested on val"
    scale = Scaler.fit(split.train)
    train, validation, test = scale(split.train), scale(split.validation), scale(evaluation.features_of(split.test))
    part, classes = parts[split.test], evaluation.data.classes
    model, c = fit_independent_validated(train, split.labels, validation, split.validation_labels)
    note = f"L-BFGS logistic regression for each class, C={c:g}; {how}"
    yield Measurement("linear_probe", MultiLabel(part, model.scores(test), classes), note)
    bank, bank_labels = np.concatenate([train, validation]), np.concatenate([split.labels, split.validation_labels])
    for k, shares in knn_shares(bank, bank_labels, test, KNN).items():
        note = f"share of neighbours, cosine, standardised features; tested on {split.test}"
        yield Measurement(f"knn{k}", MultiLabel(part, shares, classes), note)


def paper(evaluation: Evaluation) -> Iterator[Measurement]:
    """A linear layer on a tenth of the training images, last epoch, tested on the `val` list, the encoder in evaluation mode.

    The published pipeline stretches each band's mean ± 2 deviations to 0 … 255, feeds un-normalised [0, 1] values at 128 px and
    drops a fifth of the features in training.
    """
    constants, part = evaluation.task.paper, evaluation.data.parts["val"]
    source = evaluation.source
    if isinstance(source, Encoder):
        source = source.with_preprocessing(published_preprocessing(constants.size))
    chosen = taken(evaluation.data.parts["train"].labels, constants.train_share, _SHARE_SEED)
    # only the tenth is encoded
    tenth = _with_train(evaluation.data, chosen, constants.train_share)
    sub = replace(evaluation, data=tenth)
    train, test = (sub.features(name, constants.size, source) for name in ("train", "val"))
    model = fit_soft_margin_adam(train, tenth.parts["train"].labels, constants, evaluation.epochs, evaluation.seed)
    note = f"Adam {constants.learning_rate:g}, batch {constants.batch_size}, {evaluation.epochs} epochs, last epoch, dropout "
    note += f"{constants.dropout:g}; {len(chosen)} training images ({constants.train_share:.0%}); tested on val"
    yield Measurement("linear_probe", MultiLabel(part, model.scores(test), evaluation.data.classes, constants.batch_size), note)


def published_preprocessing(size: int) -> Preprocessing:
    """Stretch mean ± 2 deviations of each band to [0, 1], without normalisation."""
    return Preprocessing(RGB, Stretch("eurosat", _LOW, _HIGH), (0.0,) * 3, (1.0,) * 3, size)


def _share(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a seeded share of the images, and of the rest."""
    mask = np.zeros(len(labels), bool)
    mask[taken(labels, INNER_SHARE, INNER_SEED)] = True
    return positions(mask)


def _with_train(data: LabelledImages, chosen: np.ndarray, share: float) -> LabelledImages:
    """The data with a choice of the training images; the cached features of the other parts stay valid."""
    parts = {**data.parts, "train": data.parts["train"].take(chosen)}
    return replace(data, parts=parts, version=f"{data.version}/train-{share:g}-{_SHARE_SEED}")
