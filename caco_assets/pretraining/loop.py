"""The training loop: epochs of steps of any objective, on a CPU or a GPU; what was interrupted goes on to the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD

from caco_assets.errors import UserError
from caco_assets.pretraining import checkpoint
from caco_assets.pretraining.metrics import JsonLines, MetricsSink
from caco_assets.pretraining.objectives import Objective
from caco_assets.pretraining.record import Record
from caco_assets.progress import Progress, Say
from caco_assets.settings import Pretraining

Probe = Callable[[nn.Module], float]

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"
_SGD_MOMENTUM = 0.9


class Batch(Protocol):
    """One step's samples."""

    @property
    def views(self) -> Tensor:
        """float32 (V, B, C, H, W)."""
        ...

    @property
    def slots(self) -> Tensor:
        """int64 (B,)."""
        ...


class Batches(Protocol):
    """Where batches come from: a pure function of the epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in each epoch."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        ...


def pick_device(options: Pretraining) -> tuple[str, str]:
    """Fabric's names of accelerator and precision for `options.device` and `options.precision`.

    Raises:
        UserError: a GPU is asked for and there is none, or it lacks bfloat16.
    """
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise UserError("pretraining.device=cuda: this machine has no usable CUDA device; set it to cpu or auto")
    accelerator = "cuda" if cuda and options.device != "cpu" else "cpu"
    bf16 = accelerator == "cuda" and torch.cuda.is_bf16_supported()
    if options.precision == "bf16" and accelerator == "cuda" and not bf16:
        raise UserError("pretraining.precision=bf16: this GPU has no bfloat16; set it to fp32 or auto")
    wanted = options.precision == "bf16" or (options.precision == "auto" and bf16)
    return accelerator, "bf16-mixed" if wanted else "32-true"


def learning_rate(step: int, steps_per_epoch: int, options: Pretraining) -> float:
    """Rate of optimiser step `step` (from 0): linear warm-up, then ×0.1 at the milestones, epoch by epoch, or half a cosine."""
    warmup, total = options.warmup_epochs * steps_per_epoch, options.epochs * steps_per_epoch
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
    epoch = step // steps_per_epoch
    return options.learning_rate * 0.1 ** sum(epoch >= int(fraction * options.epochs) for fraction in options.milestones)


def train(
    objective: Objective,
    batches: Batches,
    options: Pretraining,
    *,
    seed: int,
    folder: Path,
    recipe: dict[str, object],
    say: Say,
    sinks: Sequence[MetricsSink] = (),
    probe: Probe | None = None,
) -> None:
    """Train `objective` in place for `options.epochs`, going on from the checkpoint in `folder` if there is one.

    Args:
        objective: see `Objective` for the order of calls in a step.
        batches: their order and content are functions of the epoch.
        options: rates, schedule, precision, intervals.
        seed: of whatever the network draws (drop path, …) and of the labelling.
        folder: of `checkpoint.pt` and `metrics.jsonl`; must exist.
        recipe: settings that a checkpoint must share.
        say: outlet of the progress.
        sinks: further takers of the figures.
        probe: judges the query encoder each `options.probe_every` epochs.

    Raises:
        UserError: the loss is not finite (the last checkpoint stays), no such device, or the checkpoint is of another recipe.
    """
    accelerator, precision = pick_device(options)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # pyright: ignore[reportArgumentType]
    trained = [p for p in objective.parameters() if p.requires_grad]
    sgd = SGD(trained, options.learning_rate, momentum=_SGD_MOMENTUM, weight_decay=options.weight_decay, fused=True)
    model, optimiser = fabric.setup(objective, sgd)
    done, step = checkpoint.load(folder / CHECKPOINT, objective, sgd, recipe=recipe)
    if done:
        say(f"pretrain: going on after epoch {done} of {options.epochs}")
    objective.train()
    with JsonLines(folder / METRICS, keep_until=step) as lines:
        record = Record([lines, *sinks], options)
        progress = Progress("pretrain", options.epochs * batches.steps_per_epoch, "steps", say, done=step)
        for epoch in range(done, options.epochs):
            epoch_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
            record.start_epoch()
            with torch.random.fork_rng(devices=[fabric.device] if accelerator == "cuda" else []):
                torch.manual_seed(epoch_seed)
                for batch in batches.epoch(epoch):
                    rate = learning_rate(step, batches.steps_per_epoch, options)
                    for group in sgd.param_groups:
                        group["lr"] = rate
                    objective.before_step()
                    output = model(*fabric.to_device((batch.views, batch.slots)))
                    optimiser.zero_grad(set_to_none=True)
                    fabric.backward(output.loss)
                    optimiser.step()
                    objective.after_step(output)
                    step += 1
                    record.add(step, epoch, rate, output.metrics, batch.slots)
                    progress.advance(note=record.note)
            values = record.end_epoch() | objective.end_epoch(epoch_seed).values
            if probe is not None and options.probe_every and (epoch + 1) % options.probe_every == 0:
                values["probe"] = _judge(probe, objective.encoder_q)
            record.log(step, {"epoch": epoch, **values})
            if (epoch + 1) % options.checkpoint_every == 0 or epoch + 1 == options.epochs:
                lines.flush()
                checkpoint.save(folder / CHECKPOINT, objective, sgd, epoch=epoch + 1, step=step, recipe=recipe)
        progress.close(record.note)


def _judge(probe: Probe, network: nn.Module) -> float:
    network.eval()
    try:
        return probe(network)
    finally:
        network.train()
