"""Trains a decoder on feature levels, optionally with the encoder; validation may pick epoch and threshold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caco_assets.core.progress import Progress
from caco_assets.downstream.features.pyramids import POSITIONS, Pyramids, Tiles, Tuned, batches
from caco_assets.downstream.finetuning.dense_targets import HALF, DenseTarget
from caco_assets.downstream.finetuning.epoch_checkpoint import (
    EpochCheckpoint,
    rng_state,
    set_rng_state,
    set_torch_rng_states,
    torch_rng_states,
)
from caco_assets.downstream.finetuning.unet import UNetDecoder


@dataclass(frozen=True)
class Part:
    """Tiles of one part, and the source of their levels."""

    tiles: Tiles
    pyramids: Pyramids


@dataclass(frozen=True)
class DecoderConfig:
    """How a decoder is trained: Adam, with a rate that falls by a factor after each epoch."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    decay: float
    encoder_rate: float
    """Rate of an encoder that is trained too; it falls by the same factor."""


@dataclass(frozen=True)
class Fitted:
    """A trained decoder, and the encoder if it was trained too."""

    decoder: UNetDecoder
    tuned: Tuned | None
    epoch: int
    """From 1."""
    threshold: float
    score: float | None
    """Score on the validation part; None if there was none."""


def fit(
    train: Part,
    val: Part | None,
    target: DenseTarget,
    config: DecoderConfig,
    seed: int,
    device: torch.device,
    checkpoint: EpochCheckpoint | None = None,
) -> Fitted:
    """Train a decoder; each tile in a random one of its eight orientations.

    Args:
        train: its `pyramids` is a `Tuned` if the encoder is trained too.
        val: picks epoch and threshold; None: the last epoch and threshold 0.5.
        target: what the decoder learns.
        config: optimizer settings and epochs.
        seed: of the initial weights, the order, the orientations and the dropout. Torch's global generator is unchanged.
        device: of the decoder.
        checkpoint: state that an interrupted training resumes from; None: nothing is saved.
    """
    tuned = train.pyramids if isinstance(train.pyramids, Tuned) else None
    checkpoint = checkpoint or EpochCheckpoint()
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with torch.no_grad():
            channels = [level.shape[1] for level in train.pyramids.levels(train.tiles, [0], [0])]
        decoder = UNetDecoder(channels, target.outputs).to(device)
        groups: list[dict[str, Any]] = [{"params": list(decoder.parameters()), "lr": config.learning_rate}]
        if tuned is not None:
            groups.append({"params": list(tuned.parameters()), "lr": config.encoder_rate})
        optimizer = torch.optim.Adam(groups, weight_decay=config.weight_decay, fused=True)
        falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, config.decay)
        checkpointed = {"decoder": decoder, **({"tuned": tuned} if tuned else {}), "optimiser": optimizer, "falling": falling}
        done, best = 0, None
        if (state := checkpoint.load()) is not None:
            for name, part in checkpointed.items():
                part.load_state_dict(state[name])
            set_rng_state(rng, state["order"])
            set_torch_rng_states(state["chance"], device)
            done, best = state["epoch"], _best_of(state["best"], decoder, tuned)
        progress = Progress(f"decoder, seed {seed}", config.epochs, "epoch", done)
        for epoch in range(done + 1, config.epochs + 1):
            _modes(decoder, tuned, training=True)
            for batch in _shuffled(len(train.tiles), config.batch_size, rng):
                positions = rng.integers(POSITIONS, size=len(batch)).tolist()
                masks = torch.from_numpy(train.tiles.truth(batch, positions)).to(device)
                optimizer.zero_grad(set_to_none=True)
                loss = target.loss(decoder(train.pyramids.levels(train.tiles, batch, positions)), masks)
                loss.backward()
                optimizer.step()
            falling.step()
            if val is not None:
                score, threshold = _validate(decoder, tuned, val, target)
                if best is None or best.score is None or score > best.score:
                    best = Fitted(copy.deepcopy(decoder), copy.deepcopy(tuned), epoch, threshold, score)
            if checkpoint.due():
                now = {name: part.state_dict() for name, part in checkpointed.items()}
                chance = {"order": rng_state(rng), "chance": torch_rng_states(device)}
                checkpoint.save({"epoch": epoch, **now, **chance, "best": _state_of(best)})
            progress.advance()
        progress.close()
    fitted = best or Fitted(decoder, tuned, config.epochs, HALF, None)
    _modes(fitted.decoder, fitted.tuned, training=False)
    return fitted


def _state_of(best: Fitted | None) -> dict[str, Any] | None:
    if best is None:
        return None
    tuned = best.tuned.state_dict() if best.tuned else None
    figures = {"epoch": best.epoch, "threshold": best.threshold, "score": best.score}
    return {"decoder": best.decoder.state_dict(), "tuned": tuned, **figures}


def _best_of(state: dict[str, Any] | None, decoder: UNetDecoder, tuned: Tuned | None) -> Fitted | None:
    if state is None:
        return None
    decoder, tuned = copy.deepcopy(decoder), copy.deepcopy(tuned)
    decoder.load_state_dict(state["decoder"])
    if tuned is not None:
        tuned.load_state_dict(state["tuned"])
    return Fitted(decoder, tuned, state["epoch"], state["threshold"], state["score"])


def answers(fitted: Fitted, part: Part, target: DenseTarget) -> Iterator[np.ndarray]:
    """Classes (B, H, W) uint8 of a part's tiles in order, a batch at a time."""
    source = fitted.tuned or part.pyramids
    for logits, _ in _run(fitted.decoder, fitted.tuned, Part(part.tiles, source)):
        yield target.answers(logits, fitted.threshold)


def _validate(decoder: UNetDecoder, tuned: Tuned | None, val: Part, target: DenseTarget) -> tuple[float, float]:
    counts_for_validation = [
        target.counts_for_validation(logits, np.asarray(val.tiles.masks[batch[0] : batch[-1] + 1]))
        for logits, batch in _run(decoder, tuned, Part(val.tiles, tuned or val.pyramids))
    ]
    return target.validation_score(np.sum(counts_for_validation, axis=0))


@torch.no_grad()
def _run(decoder: UNetDecoder, tuned: Tuned | None, part: Part, size: int = 32) -> Iterator[tuple[Tensor, list[int]]]:
    """Logits of tiles in their original orientation."""
    _modes(decoder, tuned, training=False)
    for batch in batches(len(part.tiles), size):
        yield decoder(part.pyramids.levels(part.tiles, batch, [0] * len(batch))), batch


def _modes(decoder: nn.Module, tuned: nn.Module | None, *, training: bool) -> None:
    decoder.train(training)
    if tuned is not None:
        tuned.train(training)


def _shuffled(count: int, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Seeded batches; a single remaining tile joins the previous batch, since its deepest level may be one pixel."""
    order = rng.permutation(count).tolist()
    found = [order[start : start + size] for start in range(0, count, size)]
    if len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [found[-2] + found[-1]]
    yield from found
