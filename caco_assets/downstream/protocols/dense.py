"""The protocols of dense tasks: a U-Net decoder on a frozen encoder (`paper`, `clean`), or trained together with it (`fine_tune`).

`paper`: un-normalised [0, 1] RGB, all of the training part, last epoch, threshold one half. `clean`: the encoder's own
preprocessing; the validation part picks epoch and threshold, the test part is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from caco_assets.downstream.datasets.classification import key
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.features.baselines import Contestant
from caco_assets.downstream.features.device import default_device
from caco_assets.downstream.features.feature_cache import FeatureCache, FeatureSource
from caco_assets.downstream.features.pyramids import POSITIONS, Fresh, Tiles, Tuned, batches, pyramids
from caco_assets.downstream.finetuning.decoder_loop import Part, Recipe, answers, fit
from caco_assets.downstream.finetuning.dense_targets import HALF, kind_of
from caco_assets.downstream.finetuning.epoch_checkpoint import EpochFile
from caco_assets.downstream.metrics.confusion import Pixels, confusion
from caco_assets.downstream.metrics.example_masks import Examples
from caco_assets.downstream.probes.per_pixel import fit_pixels
from caco_assets.downstream.protocols.trial import Measurement
from caco_assets.downstream.tasks import Task
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.pretraining.encoder.stretch import Stretch
from caco_assets.settings import Dense

FROZEN, TUNED = "frozen_decoder", "fine_tune"
VAL_SHARE, VAL_SEED = 0.2, 0
"""Of the training images where the authors have no validation part. Fixed: part of the protocol."""


@dataclass(frozen=True)
class DenseTrial:
    """One contestant on one data set with a class for each pixel, cut into tiles."""

    task: Task
    data: DenseImages
    contestant: Contestant
    source: FeatureSource
    seed: int
    cache: FeatureCache
    training: Dense
    kept: EpochFile = field(default_factory=EpochFile)
    """Where an interrupted training goes on from."""


def paper(trial: DenseTrial) -> Iterator[Measurement]:
    """Frozen encoder, as published: the last epoch counts."""
    yield _judged(trial, trial.data, FROZEN, validated=False)


def clean(trial: DenseTrial) -> Iterator[Measurement]:
    """Frozen encoder, the validation part picks."""
    yield _judged(trial, trial.data.validated(VAL_SHARE, VAL_SEED), FROZEN, validated=True)


def fine_tune(trial: DenseTrial) -> Iterator[Measurement]:
    """The encoder is trained too, the validation part picks."""
    yield _judged(trial, trial.data.validated(VAL_SHARE, VAL_SEED), TUNED, validated=True)


DENSE_PROTOCOLS: dict[str, Callable[[DenseTrial], Iterator[Measurement]]] = {
    "dense_paper": paper,
    "dense_clean": clean,
    "dense_fine_tune": fine_tune,
}


def _judged(trial: DenseTrial, data: DenseImages, method: str, *, validated: bool) -> Measurement:
    if not isinstance(trial.source, Encoder):
        return _plain(trial, data, method, validated=validated)
    encoder, shown = trial.source, "the encoder's own preprocessing"
    if not validated:
        encoder, shown = encoder.with_preprocessing(_unit_rgb(trial)), "un-normalised [0, 1] RGB"
    device = default_device()
    home = encoder.mean.device
    encoder = encoder.to(device).eval()
    settings = trial.training
    recipe = Recipe(
        epochs=settings.fine_tune_epochs if method == TUNED else settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        encoder_rate=settings.encoder_rate,
    )
    kind = kind_of(data)
    identity = encoder.identity

    def part(name: str, positions: int) -> Part:
        tiles = _tiles(trial, data, name)
        stem = key(data.version, name, *(tile.name for tile in data.parts[name]), data.tile)
        if method == TUNED:
            return Part(tiles, Fresh(encoder))
        folder, limit = trial.cache.folder / "pyramids", settings.cache_gb * 1e9
        return Part(tiles, pyramids(encoder, identity, tiles, stem, positions, folder, limit))

    train = part("train", POSITIONS)
    if method == TUNED:
        train = replace(train, pyramids=Tuned(encoder))
    fitted = fit(train, part("val", 1) if validated else None, kind, recipe, trial.seed, device, trial.kept)
    test = part("test", 1)
    counts, start = [], 0
    examples = Examples(data.parts["test"], test.tiles.masks)
    for classes in answers(fitted, test, kind):
        examples.see(start, classes)
        counts.append(confusion(classes, np.asarray(test.tiles.masks[start : start + len(classes)]), len(data.classes)))
        start += len(classes)
    encoder.to(home)
    chosen = (
        f"epoch {fitted.epoch} of {recipe.epochs} and threshold {fitted.threshold:g} by val"
        if validated
        else (f"epoch {recipe.epochs}, the last, threshold {HALF:g}")
    )
    if data.dates == 1:
        chosen = chosen.partition(" and threshold")[0].partition(", threshold")[0] + (" by val" if validated else "")
    trained = f"and the encoder ({recipe.encoder_rate:g})" if method == TUNED else "on the frozen encoder (evaluation mode)"
    note = (
        f"U-Net {trained}, Adam {recipe.learning_rate:g}, ×{recipe.decay:g} per epoch, batch {recipe.batch_size}; {chosen}; {shown}"
    )
    outcome = Pixels(data.parts["test"], np.concatenate(counts), data.classes, data.scored, examples.kept)
    return Measurement(method, outcome, f"{note}; tiles of {data.tile} px; {_val_note(trial, data)}")


def _plain(trial: DenseTrial, data: DenseImages, method: str, *, validated: bool) -> Measurement:
    """A logistic regression on the bands of single pixels in the decoder's place."""
    kind, classes = kind_of(data), len(data.classes)
    model = fit_pixels(_tiles(trial, data, "train"), kind, classes, trial.seed)
    threshold = HALF
    if validated:
        val = _tiles(trial, data, "val")
        seen = [kind.evidence(model.logits(val, each), np.asarray(val.masks[each])) for each in _stretches(len(val))]
        threshold = kind.verdict(np.sum(seen, axis=0))[1]
    test = _tiles(trial, data, "test")
    counts, examples = [], Examples(data.parts["test"], test.masks)
    for each in _stretches(len(test)):
        said = kind.answers(model.logits(test, each), threshold)
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
    return Measurement(method, outcome, f"{note}; {_val_note(trial, data)}")


def _tiles(trial: DenseTrial, data: DenseImages, part: str) -> Tiles:
    images, masks = data.arrays(part, trial.cache.folder / "tiles")
    return Tiles(images, masks, data.pixel_format)


def _stretches(count: int) -> Iterator[slice]:
    return (slice(batch[0], batch[-1] + 1) for batch in batches(count, 32))


def _unit_rgb(trial: DenseTrial) -> Preprocessing:
    """[0, 1] RGB between the limits that the task publishes, else of reflectance 0 … 0.275."""
    limits = trial.task.paper.limits
    if limits is None:
        return Preprocessing.unit_rgb(trial.data.tile)
    low, high = zip(*limits, strict=True)
    return Preprocessing(RGB, Stretch("reflectance", low, high), (0.0,) * 3, (1.0,) * 3, trial.data.tile)


def _val_note(trial: DenseTrial, data: DenseImages) -> str:
    """What `validated` added to the note that the judge appends anyway."""
    own = trial.data.note
    return data.note.removeprefix(own).removeprefix("; ") or "no validation"
