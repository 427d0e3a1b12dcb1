"""Trains a backbone and a linear layer on image labels, together: the fine-tuning loop and its resume state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caco_assets.core.progress import Progress
from caco_assets.downstream.datasets.classification import Part
from caco_assets.downstream.features.batch_norm import batches
from caco_assets.downstream.features.device import default_device
from caco_assets.downstream.features.preprocessed_images import Inputs
from caco_assets.downstream.finetuning.epoch_checkpoint import (
    EpochCheckpoint,
    rng_state,
    set_rng_state,
    set_torch_rng_states,
    torch_rng_states,
)
from caco_assets.downstream.metrics.average_precision import macro_ap
from caco_assets.downstream.metrics.bootstrap import accuracy
from caco_assets.downstream.metrics.outcomes import MultiLabel, Outcome, SingleLabel
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.settings import FineTune

_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class Labels:
    """Label type for loss and validation score: one class per image, or several."""

    several: bool
    classes: tuple[str, ...]

    @classmethod
    def of(cls, part: Part, classes: tuple[str, ...]) -> Labels:
        """Detect it from the shape of a part's labels."""
        return cls(part.labels.ndim == 2, classes)

    def loss(self, logits: Tensor, labels: np.ndarray) -> Tensor:
        """Mean cross-entropy, or mean binary cross-entropy over all classes."""
        if self.several:
            return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).to(logits))
        return F.cross_entropy(logits, torch.from_numpy(labels).to(logits.device))

    def figure(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """Accuracy, or macro average precision."""
        return macro_ap(labels, logits) if self.several else accuracy(labels, logits.argmax(axis=1))

    def outcome(self, part: Part, logits: np.ndarray) -> Outcome:
        """For the rows."""
        return MultiLabel(part, logits, self.classes) if self.several else SingleLabel(part, logits.argmax(axis=1))


class Network(nn.Module):
    """An encoder's backbone and a linear layer: preprocessed images (B, C, H, W) → logits (B, classes)."""

    def __init__(self, encoder: Encoder, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(encoder.backbone)
        # not through torch's global generator
        self.head = nn.Linear(encoder.width, classes, device="meta").to_empty(device="cpu")
        nn.init.trunc_normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def of(cls, encoder: Encoder, classes: int, weights: dict[str, Tensor]) -> Network:
        """Build from trained weights, with the memory layout of training."""
        network = cls(encoder, classes, torch.Generator())
        network.load_state_dict(weights)
        return network.laid_out()

    def laid_out(self) -> Network:
        """Memory layout for fast convolutions."""
        self.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.backbone(images))


@dataclass(frozen=True)
class Best:
    """The network with the best validation score so far."""

    figure: float
    rate: float
    epoch: int
    weights: dict[str, Tensor]


class Course:
    """Progress of a fine-tuning over several rates, and its best network so far."""

    def __init__(self, file: EpochCheckpoint) -> None:
        self.file = file
        self._state = file.load()
        self.best = Best(**self._state["best"]) if self._state and self._state["best"] else None

    def over(self, rate: float, rates: tuple[float, ...]) -> bool:
        """Whether training at this rate is done: a later rate was in progress at the interruption."""
        return self._state is not None and rates.index(rate) < rates.index(self._state["rate"])

    def state(self, rate: float) -> dict[str, Any] | None:
        """The state that training at this rate resumes from."""
        return self._state if self._state is not None and self._state["rate"] == rate else None

    def save(self, state: dict[str, Any]) -> None:
        """Write the progress."""
        self.file.save(state | {"best": vars(self.best) if self.best else None})


def train_network(
    encoder: Encoder,
    inputs: Inputs,
    truth: np.ndarray,
    labels: Labels,
    options: FineTune,
    seed: int,
    validate: Callable[[Network], float] | None = None,
    course: Course | None = None,
) -> Iterator[tuple[int, float, Network]]:
    """Train a copy of an encoder with a linear layer at the first rate of the options.

    Args:
        encoder: unchanged.
        inputs: (N,) training images.
        truth: their labels.
        labels: label type.
        options: epochs, batch, optimizer, rate, weight decay, warm-up, precision.
        seed: of all randomness; torch's global generator is unchanged.
        validate: score of the network after an epoch; None: the score is NaN.
        course: state that an interrupted training resumes from; None: nothing is saved.

    Yields:
        After each epoch its number (from 1), its score, and the network, which is trained further. Epochs
        finished before an interruption are not yielded again; the last one always is.
    """
    where = default_device()
    generator = torch.Generator().manual_seed(seed)
    network = Network(encoder, len(labels.classes), generator).to(where).laid_out()
    optimizer = _optimizer(network, options)
    rng = np.random.default_rng(seed)
    rate = options.learning_rates[0]
    steps = options.epochs * math.ceil(len(inputs) / options.batch_size)
    # randomness inside the backbone (drop path) uses torch's global generators
    inside = _RandomState(seed, where)
    step, done = 0, 0
    if course is not None and (state := course.state(rate)) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimiser"])
        set_rng_state(rng, state["order"])
        generator.set_state(state["flips"])
        inside.inside, step, done = state["inside"], state["step"], state["epoch"]
    seen = options.epochs * len(inputs)
    progress = Progress(f"fine-tune at rate {rate:g}, seed {seed}", seen, "image", done * len(inputs))
    for epoch in range(done + 1, options.epochs + 1):
        network.train()
        for positions in batches(rng.permutation(len(inputs)), options.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = rate * _height(step / steps, options.warmup)
            images = _flipped(inputs.batch(positions), generator).to(where, memory_format=torch.channels_last)
            with inside, _precision(options, where):
                loss = labels.loss(network(images).float(), truth[positions])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            progress.advance(len(positions))
        yield epoch, validate(network) if validate else math.nan, network
        # after the caller has seen the epoch, so that its best network is in the file; the caller handles the last epoch
        if course is not None and epoch < options.epochs and course.file.due():
            learnt = {"network": network.state_dict(), "optimiser": optimizer.state_dict(), "step": step}
            chance = {"order": rng_state(rng), "flips": generator.get_state(), "inside": inside.inside}
            course.save({"rate": rate, "epoch": epoch, **learnt, **chance})
    progress.close()


@torch.no_grad()
def predict(network: Network, inputs: Inputs, options: FineTune) -> np.ndarray:
    """float32 (N, classes) logits, in evaluation mode."""
    where = network.head.weight.device
    network.eval()
    found = []
    for positions in np.split(np.arange(len(inputs)), range(_EVALUATED_AT_ONCE, len(inputs), _EVALUATED_AT_ONCE)):
        with _precision(options, where):
            images = inputs.batch(positions).to(where, memory_format=torch.channels_last)
            found.append(network(images).float().cpu().numpy())
    return np.concatenate(found)


class _RandomState:
    """Use training's own states of torch's global generators; restore the previous ones afterwards."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._outside = torch_rng_states(device)
        torch.manual_seed(seed)
        self.inside = torch_rng_states(device)
        set_torch_rng_states(self._outside, device)

    def __enter__(self) -> None:
        self._outside = torch_rng_states(self._device)
        set_torch_rng_states(self.inside, self._device)

    def __exit__(self, *_: object) -> None:
        self.inside = torch_rng_states(self._device)
        set_torch_rng_states(self._outside, self._device)


def _optimizer(network: Network, options: FineTune) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only, not on biases and norms."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rates[0], momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.learning_rates[0])


def _height(done: float, warmup: float) -> float:
    """Share of the full rate at fraction `done` of training: linear warm-up, then cosine decay."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each image horizontally and vertically, each with probability 0.5."""
    for axis in (2, 3):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        images[chosen] = images[chosen].flip(axis)
    return images


def _precision(options: FineTune, device: torch.device) -> torch.autocast | nullcontext[None]:
    reduced = options.precision == "bf16" or (
        options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext()
