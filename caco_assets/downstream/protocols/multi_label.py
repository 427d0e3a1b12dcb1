"""The two protocols for images with several labels: `clean` (a careful reader's) and `paper` (as published on BigEarthNet)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.metrics.outcomes import MultiLabel
from caco_assets.downstream.probes.linear_knn import Scaler
from caco_assets.downstream.probes.multilabel import fit_independent_validated, fit_soft_margin_adam, knn_shares, taken
from caco_assets.downstream.protocols.trial import Measurement, Trial
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import RGB, Preprocessing
from caco_assets.pretraining.encoder.stretch import Stretch

KNN = (5, 20)
# Of the choice of training images in `paper`: the reference's own.
_SHARE_SEED = 42
# Share of the training images that choose C where there is no test list, and its seed. Fixed: part of the protocol.
_INNER_SHARE, _INNER_SEED = 0.1, 0
# What the published pipeline stretches to 0 … 255, as reflectance × 10 000: mean ± 2 deviations of B04, B03, B02 over BigEarthNet.
_LOW, _HIGH = (-761, -552, -715), (1942, 1780, 1575)


def clean(trial: Trial) -> Iterator[Measurement]:
    """A logistic regression for each class with one validated C, and nearest neighbours; the test part is read once."""
    parts = trial.data.parts
    train, labels = trial.features("train", trial.size), parts["train"].labels
    if "test" in parts:
        test_part, validation, validation_labels = "test", trial.features("val", trial.size), parts["val"].labels
        split = "C chosen on val by macro average precision, tested on test"
    else:
        test_part = "val"
        inner = np.zeros(len(labels), bool)
        inner[taken(labels, _INNER_SHARE, _INNER_SEED)] = True
        train, validation, labels, validation_labels = train[~inner], train[inner], labels[~inner], labels[inner]
        split = f"no test list: C chosen on a seeded {_INNER_SHARE:.0%} of train, tested on val"
    scale = Scaler.fit(train)
    train, validation, test = scale(train), scale(validation), scale(trial.features(test_part, trial.size))
    part, classes = parts[test_part], trial.data.classes
    model, c = fit_independent_validated(train, labels, validation, validation_labels)
    note = f"L-BFGS logistic regression for each class, C={c:g}; {split}"
    yield Measurement("linear_probe", MultiLabel(part, model.scores(test), classes), note)
    bank, bank_labels = np.concatenate([train, validation]), np.concatenate([labels, validation_labels])
    for k, shares in knn_shares(bank, bank_labels, test, KNN).items():
        note = f"share of neighbours, cosine, standardised features; tested on {test_part}"
        yield Measurement(f"knn{k}", MultiLabel(part, shares, classes), note)


def paper(trial: Trial) -> Iterator[Measurement]:
    """A linear layer on a tenth of the training images, last epoch, tested on the `val` list, the encoder in evaluation mode.

    The published pipeline stretches each band's mean ± 2 deviations to 0 … 255, feeds un-normalised [0, 1] values at 128 px and
    drops a fifth of the features in training.
    """
    constants, part = trial.task.paper, trial.data.parts["val"]
    source = trial.source
    if isinstance(source, Encoder):
        source = source.with_preprocessing(published_preprocessing(constants.size))
    chosen = taken(trial.data.parts["train"].labels, constants.train_share, _SHARE_SEED)
    # only the tenth is encoded
    tenth = _with_train(trial.data, chosen, constants.train_share)
    sub = replace(trial, data=tenth)
    train, test = (sub.features(name, constants.size, source) for name in ("train", "val"))
    model = fit_soft_margin_adam(train, tenth.parts["train"].labels, constants, trial.epochs, trial.seed)
    note = f"Adam {constants.learning_rate:g}, batch {constants.batch_size}, {trial.epochs} epochs, last epoch, dropout "
    note += f"{constants.dropout:g}; {len(chosen)} training images ({constants.train_share:.0%}); tested on val"
    yield Measurement("linear_probe", MultiLabel(part, model.scores(test), trial.data.classes, constants.batch_size), note)


def published_preprocessing(size: int) -> Preprocessing:
    """Mean ± 2 deviations of each band to [0, 1], nothing normalised."""
    return Preprocessing(RGB, Stretch("eurosat", _LOW, _HIGH), (0.0,) * 3, (1.0,) * 3, size)


def _with_train(data: LabelledImages, chosen: np.ndarray, share: float) -> LabelledImages:
    """The data with a choice of the training images; the version of the other parts' features stays the same."""
    parts = {**data.parts, "train": data.parts["train"].take(chosen)}
    return replace(data, parts=parts, version=f"{data.version}/train-{share:g}-{_SHARE_SEED}")
