"""Fine-tuning for image labels: the whole network and a linear layer on it, trained together.

Seeded: the layer's start, the order of images, the flips, and whatever chance the backbone itself uses. `fine_tune` keeps the rules
of `clean`: the validation part chooses the rate and the epoch, the test part is read once. `fine_tune_paper` trains for a fixed
time at a fixed rate on all training images and takes the last epoch, as published fine-tuning on AID does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caco_assets.downstream.average_precision import macro_ap
from caco_assets.downstream.batchnorm import batches
from caco_assets.downstream.datasets.labelled import Part
from caco_assets.downstream.inputs import Inputs, joined, preprocessed
from caco_assets.downstream.metrics import accuracy
from caco_assets.downstream.outcomes import MultiLabel, Outcome, SingleLabel
from caco_assets.downstream.trial import Measurement, Trial
from caco_assets.pretraining.encoder import Encoder
from caco_assets.progress import Progress, Say
from caco_assets.settings import FineTune

_EVALUATED_AT_ONCE = 256
# Share of the training images that validate where the lists have no test part, and its seed. Fixed: part of the protocol.
_INNER_SHARE, _INNER_SEED = 0.1, 0


@dataclass(frozen=True)
class Labels:
    """What a loss and a figure of validation need to know of labels: one class, or several, of each image."""

    several: bool
    classes: tuple[str, ...]

    @classmethod
    def of(cls, part: Part, classes: tuple[str, ...]) -> Labels:
        """Told by the shape of a part's labels."""
        return cls(part.labels.ndim == 2, classes)

    def loss(self, logits: Tensor, labels: np.ndarray) -> Tensor:
        """Cross-entropy, or binary cross-entropy over all classes; the mean."""
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

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.backbone(images))


def fine_tune(trial: Trial) -> Iterator[Measurement]:
    """Validation chooses among the rates of the settings and among the epochs; tested once."""
    encoder, parts, options = _encoder(trial), trial.data.parts, trial.fine_tune
    train, part_of_training = preprocessed(encoder, trial.data, "train", trial.size, trial.cache), parts["train"]
    if "test" in parts:
        test_name, validation, part_of_validation = "test", _inputs(trial, encoder, "val"), parts["val"]
        split = "tested on test"
    else:
        test_name = "val"
        order = np.random.default_rng(_INNER_SEED).permutation(len(train))
        inner, rest = np.split(order, [max(1, round(_INNER_SHARE * len(order)))])
        validation, part_of_validation = train.take(inner), part_of_training.take(inner)
        train, part_of_training = train.take(rest), part_of_training.take(rest)
        split = f"no test list: a seeded {_INNER_SHARE:.0%} of train validates, tested on val"
    labels = Labels.of(part_of_training, trial.data.classes)

    def judged(network: Network) -> float:
        return labels.figure(part_of_validation.labels, predict(network, validation, options))

    best: tuple[float, float, int, Network] | None = None
    for rate in options.learning_rates:
        for epoch, figure, network in train_network(
            encoder, train, part_of_training.labels, labels, _at(options, rate), trial.seed, trial.cache.say, judged
        ):
            if best is None or figure > best[0]:
                best = figure, rate, epoch, copy.deepcopy(network)
    if best is None:
        raise ValueError("no epoch was trained")
    figure, rate, epoch, network = best
    note = f"{_said(options)}, rate {rate:g} and epoch {epoch} of {options.epochs} chosen on validation ({figure:.1%}); {split}"
    logits = predict(network, _inputs(trial, encoder, test_name), options)
    yield Measurement("fine_tune", labels.outcome(parts[test_name], logits), note)


def fine_tune_paper(trial: Trial) -> Iterator[Measurement]:
    """A fixed rate and time on training and validation images together, the last epoch, tested on the test part."""
    encoder, parts, options = _encoder(trial), trial.data.parts, trial.fine_tune
    train = joined(_inputs(trial, encoder, "train"), _inputs(trial, encoder, "val"))
    truth = np.concatenate([parts["train"].labels, parts["val"].labels])
    labels = Labels.of(parts["train"], trial.data.classes)
    rate = options.learning_rates[0]
    *_, last = train_network(encoder, train, truth, labels, _at(options, rate), trial.seed, trial.cache.say)
    logits = predict(last[2], _inputs(trial, encoder, "test"), options)
    note = f"{_said(options)}, rate {rate:g}, last of {options.epochs} epochs; tested on test"
    yield Measurement("fine_tune", labels.outcome(parts["test"], logits), note)


def train_network(
    encoder: Encoder,
    inputs: Inputs,
    truth: np.ndarray,
    labels: Labels,
    options: FineTune,
    seed: int,
    say: Say,
    judged: Callable[[Network], float] | None = None,
) -> Iterator[tuple[int, float, Network]]:
    """Train a copy of an encoder with a linear layer at the first rate of the options.

    Args:
        encoder: left as it is.
        inputs: (N,) training images.
        truth: their labels.
        labels: of what kind they are.
        options: epochs, batch, optimiser, rate, weight decay, warm-up, precision.
        seed: of all chance; torch's global generator is left as it was.
        say: progress.
        judged: figure of the network after an epoch; none: it is not a number.

    Yields:
        After each epoch its number (from 1), its figure, and the network, which goes on being trained.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(seed)
    network = Network(encoder, len(labels.classes), generator).to(device)
    network.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = _optimiser(network, options)
    rng = np.random.default_rng(seed)
    rate = options.learning_rates[0]
    steps = options.epochs * math.ceil(len(inputs) / options.batch_size)
    step = 0
    # chance inside the backbone (dropped paths) comes from torch's global generators
    state = _RandomState(seed, device)
    progress = Progress(f"fine-tune at rate {rate:g}, seed {seed}", options.epochs * len(inputs), "image", say)
    for epoch in range(1, options.epochs + 1):
        network.train()
        for positions in batches(rng.permutation(len(inputs)), options.batch_size):
            for group in optimiser.param_groups:
                group["lr"] = rate * _height(step / steps, options.warmup)
            images = _flipped(inputs.batch(positions), generator).to(device, memory_format=torch.channels_last)
            with state, _precision(options, device):
                loss = labels.loss(network(images).float(), truth[positions])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            progress.advance(len(positions))
        yield epoch, judged(network) if judged else math.nan, network
    progress.close()


@torch.no_grad()
def predict(network: Network, inputs: Inputs, options: FineTune) -> np.ndarray:
    """float32 (N, classes) logits, in evaluation mode."""
    device = network.head.weight.device
    network.eval()
    found = []
    for positions in np.split(np.arange(len(inputs)), range(_EVALUATED_AT_ONCE, len(inputs), _EVALUATED_AT_ONCE)):
        with _precision(options, device):
            images = inputs.batch(positions).to(device, memory_format=torch.channels_last)
            found.append(network(images).float().cpu().numpy())
    return np.concatenate(found)


class _RandomState:
    """torch's global generators as they are inside training; outside, they are what they were."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._outside = self._get()
        torch.manual_seed(seed)
        self._inside = self._get()
        self._set(self._outside)

    def __enter__(self) -> None:
        self._outside = self._get()
        self._set(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = self._get()
        self._set(self._outside)

    def _get(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else [])]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self._device)


def _encoder(trial: Trial) -> Encoder:
    if not isinstance(trial.source, Encoder):
        raise ValueError(f"{trial.contestant.name}: has no weights to train")  # the judge sees to it
    return trial.source


def _inputs(trial: Trial, encoder: Encoder, part: str) -> Inputs:
    return preprocessed(encoder, trial.data, part, trial.size, trial.cache)


def _at(options: FineTune, rate: float) -> FineTune:
    return options.model_copy(update={"learning_rates": (rate,)})


def _optimiser(network: Network, options: FineTune) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels alone, not on biases and norms."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if options.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rates[0], momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.learning_rates[0])


def _height(done: float, warmup: float) -> float:
    """Share of the full rate when `done` of training is over: a line up, then half a cosine down."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned over left to right and top to bottom with a chance of one half each."""
    for axis in (2, 3):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        images[chosen] = images[chosen].flip(axis)
    return images


def _precision(options: FineTune, device: torch.device) -> torch.autocast | nullcontext[None]:
    reduced = options.precision == "bf16" or (
        options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext()


def _said(options: FineTune) -> str:
    return (
        f"whole network and a linear layer, {options.optimiser}, batch {options.batch_size}, weight decay "
        f"{options.weight_decay:g}, warm-up {options.warmup:.0%} and cosine, flips"
    )
