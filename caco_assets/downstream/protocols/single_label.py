"""The protocols for images with one label: `clean` (validated) and `paper` (as published)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.classification import save_array
from caco_assets.downstream.features.batch_norm import has_batch_norm, train_mode_features
from caco_assets.downstream.features.device import accelerated
from caco_assets.downstream.metrics.outcomes import SingleLabel
from caco_assets.downstream.probes.linear_adam import fit_linear_adam
from caco_assets.downstream.probes.linear_knn import Linear, Scaler, fit_validated, knn_predict
from caco_assets.downstream.protocols import fine_tune, multi_label
from caco_assets.downstream.protocols.evaluation import LARGE, Evaluation, Measurement
from caco_assets.downstream.protocols.validation_split import INNER_SEED, INNER_SHARE, positions, split_for_validation
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing

KNN = (5, 20)
_SHUFFLES = 3


def clean(evaluation: Evaluation) -> Iterator[Measurement]:
    """Logistic regression with a validated C, and nearest neighbours, on standardised features; the test part is read once.

    With only `train` and `val` lists, `val` is the test part and a seeded tenth of `train` chooses C.
    """
    parts, classes = evaluation.data.parts, len(evaluation.data.classes)
    split = split_for_validation(parts, evaluation.features_of, np.ndarray.__getitem__, _stratified)
    note = "C chosen on val, tested on test"
    if not split.has_test_list:
        note = f"no test list: C chosen on a seeded {INNER_SHARE:.0%} of train, tested on val"
    scale = Scaler.fit(split.train)
    train, validation, test = scale(split.train), scale(split.validation), scale(evaluation.features_of(split.test))
    part = parts[split.test]
    model, c = fit_validated(train, split.labels, validation, split.validation_labels, classes)
    yield Measurement("linear_probe", SingleLabel(part, model.predict(test)), f"L-BFGS logistic regression, C={c:g}; {note}")
    bank, bank_labels = np.concatenate([train, validation]), np.concatenate([split.labels, split.validation_labels])
    for k, predictions in knn_predict(bank, bank_labels, test, classes, KNN).items():
        yield Measurement(f"knn{k}", SingleLabel(part, predictions), f"cosine, standardised features; tested on {split.test}")


def paper(evaluation: Evaluation) -> Iterator[Measurement]:
    """Adam on a linear layer over un-normalised [0, 1] RGB, last epoch, tested on the `val` list as the published numbers were.

    Run twice if the encoder has batch norm: as published (train mode; `linear_probe`) and in evaluation mode
    (`linear_probe_eval_bn`).

    Raises:
        UserError: the encoder does not take three bands.
    """
    constants, labels, part = evaluation.task.paper, evaluation.data.parts["train"].labels, evaluation.data.parts["val"]
    recipe = (
        f"Adam {constants.learning_rate:g}, batch {constants.batch_size}, {evaluation.epochs} epochs, last epoch; tested on val"
    )

    def fit(versions: list[np.ndarray]) -> Linear:
        return fit_linear_adam(versions, labels, len(evaluation.data.classes), constants, evaluation.epochs, evaluation.seed)

    source = evaluation.source
    if isinstance(source, Encoder):
        source = source.with_preprocessing(Preprocessing.unit_rgb(constants.size))
    evaluated = [evaluation.features(name, constants.size, source) for name in ("train", "val")]
    if not (isinstance(source, Encoder) and has_batch_norm(source)):
        predictions = fit([evaluated[0]]).predict(evaluated[1])
        yield Measurement("linear_probe", SingleLabel(part, predictions), f"{recipe}; no batch norm")
        return
    versions, test = _train_mode(evaluation, source)
    passes = f"batch norm in train mode: features of {len(versions)} shuffled passes in batches of {constants.batch_size}, "
    passes += "test images with the running statistics these passes leave"
    yield Measurement("linear_probe", SingleLabel(part, fit(versions).predict(test)), f"{recipe}; {passes}")
    predictions = fit([evaluated[0]]).predict(evaluated[1])
    yield Measurement("linear_probe_eval_bn", SingleLabel(part, predictions), f"{recipe}; batch norm in evaluation mode")


PROTOCOLS: dict[str, Callable[[Evaluation], Iterator[Measurement]]] = {
    "paper": paper,
    "clean": clean,
    "multilabel_paper": multi_label.paper,
    "multilabel_clean": multi_label.clean,
    "fine_tune": fine_tune.fine_tune,
    "fine_tune_paper": fine_tune.fine_tune_paper,
}
"""Protocols by the names in `Task.protocols`."""
TRAINING: frozenset[str] = frozenset({"fine_tune", "fine_tune_paper", "dense_fine_tune"})
"""Protocols that train the encoder's weights."""


def _train_mode(evaluation: Evaluation, encoder: Encoder) -> tuple[list[np.ndarray], np.ndarray]:
    """Training features of every pass, and test features; cached, the same for every seed of the linear layer."""
    size, batch = evaluation.task.paper.size, evaluation.task.paper.batch_size
    shuffles = 1 if len(evaluation.data.parts["train"]) > LARGE else _SHUFFLES
    identity = (encoder.identity, evaluation.data.version, size, batch, shuffles)
    files = [evaluation.cache.file("train_mode", *identity, number) for number in (*range(shuffles), "test")]
    if not all(file.exists() for file in files):
        train, test = evaluation.cache.pixels(evaluation.data, "train"), evaluation.cache.pixels(evaluation.data, "val")
        versions, adapted = train_mode_features(
            encoder,
            train,
            evaluation.data.pixel_format,
            size=size,
            batch_size=batch,
            shuffles=shuffles,
            seed=INNER_SEED,
        )
        with accelerated(adapted):
            versions.append(adapted.features(test, evaluation.data.pixel_format, size))
        for file, features in zip(files, versions, strict=True):
            save_array(file, features)
    *versions, test = (np.load(file) for file in files)
    return versions, test


def _stratified(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a fixed, seeded share of every class, at least one image of each, and of the rest."""
    rng = np.random.default_rng(INNER_SEED)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise UserError(f"split-train.txt: class number {label} has a single image, none is left to choose C; use more images")
        mask[members[: max(1, round(INNER_SHARE * len(members)))]] = True
    return positions(mask)
