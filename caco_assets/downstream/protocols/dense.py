"""The protocols of dense tasks: a U-Net decoder on a frozen encoder (`paper`, `clean`) or trained with it (`fine_tune`).

`paper`: un-normalised [0, 1] RGB, all of the training part, last epoch, threshold 0.5. `clean`: the encoder's own
preprocessing; the validation part picks epoch and threshold, the test part is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from caco_assets.downstream.datasets.classification import key
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.features.baselines import Candidate
from caco_assets.downstream.features.device import default_device
from caco_assets.downstream.features.feature_cache import FeatureCache, FeatureSource
from caco_assets.downstream.features.pyramids import POSITIONS, Fresh, Tiles, Tuned, batches, pyramids
from caco_assets.downstream.finetuning.decoder_loop import DecoderConfig, Part, answers, fit
from caco_assets.downstream.finetuning.dense_targets import HALF, dense_target
from caco_assets.downstream.finetuning.epoch_checkpoint import EpochCheckpoint
from caco_assets.downstream.metrics.confusion import Pixels, confusion
from caco_assets.downstream.metrics.example_masks import Examples
from caco_assets.downstream.probes.per_pixel import fit_pixels
from caco_assets.downstream.protocols.evaluation import Measurement
from caco_assets.downstream.tasks import Task
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.pretraining.encoder.stretch import Stretch
from caco_assets.settings import Dense

FROZEN, TUNED = "frozen_decoder", "fine_tune"
VAL_SHARE, VAL_SEED = 0.2, 0
"""Validation share of the training images if the authors have no validation part. Fixed: part of the protocol."""


@dataclass(frozen=True)
class DenseEvaluation:
    """One candidate on one data set with pixel labels, cut into tiles."""

    task: Task
    data: DenseImages
    candidate: Candidate
    source: FeatureSource
    seed: int
    cache: FeatureCache
    training: Dense
    checkpoint: EpochCheckpoint = field(default_factory=EpochCheckpoint)
    """The state that an interrupted training resumes from."""


def paper(evaluation: DenseEvaluation) -> Iterator[Measurement]:
    """Frozen encoder, as published: the last epoch."""
    yield _measure(evaluation, evaluation.data, FROZEN, validated=False)


def clean(evaluation: DenseEvaluation) -> Iterator[Measurement]:
    """Frozen encoder; the validation part picks epoch and threshold."""
    yield _measure(evaluation, evaluation.data.validated(VAL_SHARE, VAL_SEED), FROZEN, validated=True)


def fine_tune(evaluation: DenseEvaluation) -> Iterator[Measurement]:
    """The encoder is trained too; the validation part picks epoch and threshold."""
    yield _measure(evaluation, evaluation.data.validated(VAL_SHARE, VAL_SEED), TUNED, validated=True)


DENSE_PROTOCOLS: dict[str, Callable[[DenseEvaluation], Iterator[Measurement]]] = {
    "dense_paper": paper,
    "dense_clean": clean,
    "dense_fine_tune": fine_tune,
}


def _measure(evaluation: DenseEvaluation, data: DenseImages, method: str, *, validated: bool) -> Measurement:
    if not isinstance(evaluation.source, Encoder):
        return _measure_pixels(evaluation, data, method, validated=validated)
    encoder, shown = evaluation.source, "the encoder's own preprocessing"
    if not validated:
        encoder, shown = encoder.with_preprocessing(_unit_rgb(evaluation)), "un-normalised [0, 1] RGB"
    device = default_device()
    home = encoder.mean.device
    encoder = encoder.to(device).eval()
    settings = evaluation.training
    config = DecoderConfig(
        epochs=settings.fine_tune_epochs if method == TUNED else settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        encoder_rate=settings.encoder_rate,
    )
    target = dense_target(data)
    identity = encoder.identity

    def part(name: str, positions: int) -> Part:
        tiles = _tiles(evaluation, data, name)
        stem = key(data.version, name, *(tile.name for tile in data.parts[name]), data.tile)
        if method == TUNED:
            return Part(tiles, Fresh(encoder))
        folder, limit = evaluation.cache.folder / "pyramids", settings.cache_gb * 1e9
        return Part(tiles, pyramids(encoder, identity, tiles, stem, positions, folder, limit))

    train = part("train", POSITIONS)
    if method == TUNED:
        train = replace(train, pyramids=Tuned(encoder))
    fitted = fit(train, part("val", 1) if validated else None, target, config, evaluation.seed, device, evaluation.checkpoint)
    test = part("test", 1)
    counts, start = [], 0
    examples = Examples(data.parts["test"], test.tiles.masks)
    for classes in answers(fitted, test, target):
        examples.see(start, classes)
        counts.append(confusion(classes, np.asarray(test.tiles.masks[start : start + len(classes)]), len(data.classes)))
        start += len(classes)
    encoder.to(home)
    chosen = (
        f"epoch {fitted.epoch} of {config.epochs} and threshold {fitted.threshold:g} by val"
        if validated
        else (f"epoch {config.epochs}, the last, threshold {HALF:g}")
    )
    if data.dates == 1:
        chosen = chosen.partition(" and threshold")[0].partition(", threshold")[0] + (" by val" if validated else "")
    trained = f"and the encoder ({config.encoder_rate:g})" if method == TUNED else "on the frozen encoder (evaluation mode)"
    note = (
        f"U-Net {trained}, Adam {config.learning_rate:g}, ×{config.decay:g} per epoch, batch {config.batch_size}; {chosen}; {shown}"
    )
    outcome = Pixels(data.parts["test"], np.concatenate(counts), data.classes, data.scored, examples.kept)
    return Measurement(method, outcome, f"{note}; tiles of {data.tile} px; {_val_note(evaluation, data)}")


def _measure_pixels(evaluation: DenseEvaluation, data: DenseImages, method: str, *, validated: bool) -> Measurement:
    """A logistic regression on the bands of single pixels instead of a decoder."""
    target, classes = dense_target(data), len(data.classes)
    model = fit_pixels(_tiles(evaluation, data, "train"), target, classes, evaluation.seed)
    threshold = HALF
    if validated:
        val = _tiles(evaluation, data, "val")
        seen = [target.counts_for_validation(model.logits(val, each), np.asarray(val.masks[each])) for each in _stretches(len(val))]
        threshold = target.validation_score(np.sum(seen, axis=0))[1]
    test = _tiles(evaluation, data, "test")
    counts, examples = [], Examples(data.parts["test"], test.masks)
    for each in _stretches(len(test)):
        said = target.answers(model.logits(test, each), threshold)
        examples.see(each.start, said)
        counts.append(confusion(said, np.asarray(test.masks[each]), classes))
    of_what = (
        "on the bands of single pixels" if data.dates == 1 else "on the bands of single pixels at both dates and their differences"
    )
    note = (
        f"logistic regression {of_what}, no network; threshold {threshold:g}"
        if data.dates == 2
        else (f"logistic regression {of_what}, no network")
    )
    outcome = Pixels(data.parts["test"], np.concatenate(counts), data.classes, data.scored, examples.kept)
    return Measurement(method, outcome, f"{note}; {_val_note(evaluation, data)}")


def _tiles(evaluation: DenseEvaluation, data: DenseImages, part: str) -> Tiles:
    images, masks = data.arrays(part, evaluation.cache.folder / "tiles")
    return Tiles(images, masks, data.pixel_format)


def _stretches(count: int) -> Iterator[slice]:
    return (slice(batch[0], batch[-1] + 1) for batch in batches(count, 32))


def _unit_rgb(evaluation: DenseEvaluation) -> Preprocessing:
    """[0, 1] RGB between the task's published limits, else from reflectance 0 … 0.275."""
    limits = evaluation.task.paper.limits
    if limits is None:
        return Preprocessing.unit_rgb(evaluation.data.tile)
    low, high = zip(*limits, strict=True)
    return Preprocessing(RGB, Stretch("reflectance", low, high), (0.0,) * 3, (1.0,) * 3, evaluation.data.tile)


def _val_note(evaluation: DenseEvaluation, data: DenseImages) -> str:
    """What `validated` added to the note of the data, which `score_task` appends anyway."""
    own = evaluation.data.note
    return data.note.removeprefix(own).removeprefix("; ") or "no validation"
