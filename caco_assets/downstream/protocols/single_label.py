"""The two protocols, side by side and never mixed: `clean` (a careful reader's) and `paper` (what the published numbers used)."""

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
from caco_assets.downstream.protocols.trial import LARGE, Measurement, Trial
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing

KNN = (5, 20)
# Share and seed of the validation part cut from the training part where the lists hold no test part. Fixed: part of the protocol.
_INNER_SHARE, _INNER_SEED = 0.1, 0
_SHUFFLES = 3


def clean(trial: Trial) -> Iterator[Measurement]:
    """Logistic regression with a validated C, and nearest neighbours, on standardised features; the test part is read once.

    With `train` and `val` lists alone, `val` is the test part and a seeded tenth of `train` chooses C.
    """
    parts, classes = trial.data.parts, len(trial.data.classes)
    train, labels = trial.features("train", trial.size), parts["train"].labels
    if "test" in parts:
        test_part, validation, validation_labels = "test", trial.features("val", trial.size), parts["val"].labels
        split = "C chosen on val, tested on test"
    else:
        test_part = "val"
        inner = _stratified_mask(labels, _INNER_SHARE)
        train, validation, labels, validation_labels = train[~inner], train[inner], labels[~inner], labels[inner]
        split = f"no test list: C chosen on a seeded {_INNER_SHARE:.0%} of train, tested on val"
    scale = Scaler.fit(train)
    train, validation, test = scale(train), scale(validation), scale(trial.features(test_part, trial.size))
    part = parts[test_part]
    model, c = fit_validated(train, labels, validation, validation_labels, classes)
    yield Measurement("linear_probe", SingleLabel(part, model.predict(test)), f"L-BFGS logistic regression, C={c:g}; {split}")
    bank, bank_labels = np.concatenate([train, validation]), np.concatenate([labels, validation_labels])
    for k, predictions in knn_predict(bank, bank_labels, test, classes, KNN).items():
        yield Measurement(f"knn{k}", SingleLabel(part, predictions), f"cosine, standardised features; tested on {test_part}")


def paper(trial: Trial) -> Iterator[Measurement]:
    """Adam on a linear layer over un-normalised [0, 1] RGB, last epoch, tested on the `val` list as the published numbers were.

    Twice where the encoder has batch norm: as published (train mode; `linear_probe`) and in evaluation mode
    (`linear_probe_eval_bn`).

    Raises:
        UserError: the encoder does not take three bands.
    """
    constants, labels, part = trial.task.paper, trial.data.parts["train"].labels, trial.data.parts["val"]
    recipe = f"Adam {constants.learning_rate:g}, batch {constants.batch_size}, {trial.epochs} epochs, last epoch; tested on val"

    def fit(versions: list[np.ndarray]) -> Linear:
        return fit_linear_adam(versions, labels, len(trial.data.classes), constants, trial.epochs, trial.seed)

    source = trial.source
    if isinstance(source, Encoder):
        source = source.with_preprocessing(Preprocessing.unit_rgb(constants.size))
    evaluated = [trial.features(name, constants.size, source) for name in ("train", "val")]
    if not (isinstance(source, Encoder) and has_batch_norm(source)):
        predictions = fit([evaluated[0]]).predict(evaluated[1])
        yield Measurement("linear_probe", SingleLabel(part, predictions), f"{recipe}; no batch norm")
        return
    versions, test = _train_mode(trial, source)
    passes = f"batch norm in train mode: features of {len(versions)} shuffled passes in batches of {constants.batch_size}, "
    passes += "test images with the running statistics these passes leave"
    yield Measurement("linear_probe", SingleLabel(part, fit(versions).predict(test)), f"{recipe}; {passes}")
    predictions = fit([evaluated[0]]).predict(evaluated[1])
    yield Measurement("linear_probe_eval_bn", SingleLabel(part, predictions), f"{recipe}; batch norm in evaluation mode")


PROTOCOLS: dict[str, Callable[[Trial], Iterator[Measurement]]] = {
    "paper": paper,
    "clean": clean,
    "multilabel_paper": multi_label.paper,
    "multilabel_clean": multi_label.clean,
    "fine_tune": fine_tune.fine_tune,
    "fine_tune_paper": fine_tune.fine_tune_paper,
}
"""By the names that `Task.protocols` uses."""
TRAINING: frozenset[str] = frozenset({"fine_tune", "fine_tune_paper", "dense_fine_tune"})
"""Of these: those that train the encoder's own weights."""


def _train_mode(trial: Trial, encoder: Encoder) -> tuple[list[np.ndarray], np.ndarray]:
    """Training features of every pass, and test features; cached, the same for every seed of the linear layer."""
    size, batch = trial.task.paper.size, trial.task.paper.batch_size
    shuffles = 1 if len(trial.data.parts["train"]) > LARGE else _SHUFFLES
    identity = (encoder.identity, trial.data.version, size, batch, shuffles)
    files = [trial.cache.file("train_mode", *identity, number) for number in (*range(shuffles), "test")]
    if not all(file.exists() for file in files):
        train, test = trial.cache.pixels(trial.data, "train"), trial.cache.pixels(trial.data, "val")
        versions, adapted = train_mode_features(
            encoder,
            train,
            trial.data.pixel_format,
            size=size,
            batch_size=batch,
            shuffles=shuffles,
            seed=_INNER_SEED,
        )
        with accelerated(adapted):
            versions.append(adapted.features(test, trial.data.pixel_format, size))
        for file, features in zip(files, versions, strict=True):
            save_array(file, features)
    *versions, test = (np.load(file) for file in files)
    return versions, test


def _stratified_mask(labels: np.ndarray, share: float) -> np.ndarray:
    """(N,) True for a fixed, seeded share of every class, at least one image of each."""
    rng = np.random.default_rng(_INNER_SEED)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise UserError(f"split-train.txt: class number {label} has a single image, none is left to choose C; use more images")
        mask[members[: max(1, round(share * len(members)))]] = True
    return mask
