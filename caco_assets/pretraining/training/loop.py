"""The training loop: epochs of steps of any objective, on a CPU or a GPU; a resumed run gives the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import SGD, AdamW, Optimizer

from caco_assets.core.errors import UserError
from caco_assets.core.progress import Progress
from caco_assets.pretraining import distributed
from caco_assets.pretraining.loading.batch import Batch, Batches
from caco_assets.pretraining.objectives import Objective
from caco_assets.pretraining.training import out_of_memory
from caco_assets.pretraining.training.checkpoint import LAST, PREVIOUS, Checkpoints
from caco_assets.pretraining.training.collapse import CollapseWarning, health
from caco_assets.pretraining.training.fabric import open_fabric, pick_device, synchronise_batch_norm
from caco_assets.pretraining.training.metrics_log import METRICS, JsonLines, MetricsSink
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.schedule import learning_rate
from caco_assets.pretraining.training.step_metrics import Record
from caco_assets.pretraining.training.stop_request import StopRequest
from caco_assets.settings import Pretraining

logger = logging.getLogger(__name__)

__all__ = ["CHECKPOINT", "CHECKPOINT_BEFORE", "METRICS", "Probe", "learning_rate", "pick_device", "train"]

Probe = Callable[[nn.Module], float]

CHECKPOINT, CHECKPOINT_BEFORE = LAST, PREVIOUS
_SGD_MOMENTUM = 0.9
# Steps between checks for a stop request in other processes: the exchange makes a GPU wait.
_AGREE_EVERY = 10


def train(
    objective: Objective,
    batches: Batches,
    config: RunConfig,
    *,
    sinks: Sequence[MetricsSink] = (),
    probe: Probe | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Train `objective` in place for `config.pretraining.epochs`, resuming from the checkpoint in the target if there is one.

    Args:
        objective: see `Objective` for the order of calls in a step.
        batches: their order and content are functions of the epoch.
        config: rates, schedule, precision, intervals; the seed of the network's random layers (drop path, …) and of the labelling;
            the target folder, which must exist, of `checkpoint.pt`, `best.pt` and `metrics.jsonl`.
        sinks: further receivers of the metrics.
        probe: scores the query encoder every `probe_every` epochs.
        stop: checked after each step; if set, a checkpoint is written.

    Raises:
        UserError: the loss or a gradient is not finite or memory runs out (the last checkpoint stays), the device is missing, or
            the checkpoint is of another training config.
        Stopped: on request, with a checkpoint.
    """
    options, folder = config.pretraining, config.target
    fabric = open_fabric(options)
    if distributed.rank() > 0:
        # only rank 0 logs and probes
        sinks, probe = (), None
    synchronise_batch_norm(objective, fabric)
    training = _Training(fabric, objective, batches, config, stop or StopRequest())
    training.resume()
    epoch, step = training.epoch, training.step
    # the caller's random state is restored afterwards
    with (
        torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []),
        JsonLines(folder / METRICS, keep_until=step, keep_epochs=epoch, write=distributed.rank() == 0) as lines,
    ):
        record = Record([lines, *sinks], options, batches.steps_per_epoch)
        progress = Progress("pretrain", options.epochs * batches.steps_per_epoch, "steps", done=step)
        try:
            training.run(lines, record, progress, CollapseWarning(), probe)
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory.ran_out(error):
                raise
            words = str(error)
        # outside the handler, where the tensors of the failed step have been freed
        raise training.too_large(words)


def _optimizer(trained: list[nn.Parameter], options: Pretraining) -> Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adamw":
        return AdamW(trained, rate, weight_decay=decay, fused=True)
    return SGD(trained, rate, momentum=_SGD_MOMENTUM, weight_decay=decay, fused=True)


class _Training:
    """An objective with its optimizer and its progress."""

    def __init__(self, fabric: Fabric, objective: Objective, batches: Batches, config: RunConfig, stop: StopRequest) -> None:
        self._fabric, self._objective, self._batches, self._options = fabric, objective, batches, config.pretraining
        self._seed, self._stop = config.seed, stop
        self._trained = [p for p in objective.parameters() if p.requires_grad]
        optimizer = _optimizer(self._trained, self._options)
        self._model, self._optimizer = fabric.setup(objective, optimizer)
        minutes = self._options.checkpoint_minutes
        self._checkpoints = Checkpoints(config.target, objective, optimizer, config.training_config, minutes)
        self.epoch = self.step = 0
        self._batch: Batch | None = None

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        self._checkpoints.load()
        self.epoch, self.step = self._checkpoints.epoch, self._checkpoints.step
        if len(set(seen := distributed.gather(torch.tensor([self.step], device=self._fabric.device)).tolist())) > 1:
            steps = ", ".join(str(step) for step in seen)
            raise UserError(
                f"{self._checkpoints.folder}: the processes see checkpoints of steps {steps}; all must share one folder"
            )
        if self.step:
            inside, whole = self.step - self.epoch * self._batches.steps_per_epoch, self._batches.steps_per_epoch
            more = f" and {inside} of {whole} steps" if inside else ""
            logger.info(f"pretrain: resuming after epoch {self.epoch} of {self._options.epochs}{more}")

    def run(self, lines: JsonLines, record: Record, progress: Progress, collapse: CollapseWarning, probe: Probe | None) -> None:
        """Run the remaining epochs."""
        options, objective = self._options, self._objective
        objective.train()
        while self.epoch < options.epochs:
            self._steps(lines, record, progress)
            values = record.end_epoch() | objective.end_epoch(_number(self._seed, self.epoch)).values | health(objective)
            collapse.check(self.epoch, values)
            if probe is not None and options.probe_every and (self.epoch + 1) % options.probe_every == 0:
                values["probe"] = _judge(probe, objective.encoder_q)
                self._checkpoints.judge(self.epoch, self.step, values["probe"], objective.encoder_q)
            record.log(self.step, {"epoch": self.epoch, **values})
            self.epoch += 1
            if self.epoch % options.checkpoint_every == 0 or self.epoch == options.epochs:
                self._save(lines, record)
        progress.close(record.note)

    def _steps(self, lines: JsonLines, record: Record, progress: Progress) -> None:
        """Run the remaining steps of the epoch."""
        objective, options, whole = self._objective, self._options, self._batches.steps_per_epoch
        first = self.epoch * whole
        record.start_epoch(self.epoch, [line for line in lines.kept if line["step"] > first] if self.step > first else ())
        for batch in self._batches.epoch(self.epoch, self.step - first):
            self._batch = batch
            # each process drops different units
            torch.manual_seed(_number(self._seed, self.epoch, self.step - first) + distributed.rank())
            rate = learning_rate(self.step, whole, options)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            objective.before_step()
            output = self._model(*self._fabric.to_device((batch.views, batch.slots)))
            self._optimizer.zero_grad(set_to_none=True)
            self._fabric.backward(output.loss)
            self._optimizer.step()
            objective.after_step(output)
            self.step += 1
            record.add(self.step, rate, {**output.metrics, "grad_norm": _gradient_norm(self._trained)}, output.slots)
            progress.advance(note=record.note)
            if self._asked():
                self._save(lines, record)
                self._stop.answer()

    def _asked(self) -> bool:
        """Whether to write a checkpoint now, because it is due or a stop was requested; all processes agree."""
        if distributed.size() > 1 and self._fabric.device.type == "cuda" and self.step % _AGREE_EVERY:
            return False
        asked = distributed.largest(self._stop.signum or int(self._checkpoints.due()), self._fabric.device)
        if asked > 1:
            self._stop.ask(asked)
        return asked > 0

    def _save(self, lines: JsonLines, record: Record) -> None:
        record.fetch()  # raises if a metric is not finite: the resulting weights are not saved
        lines.flush()
        self._checkpoints.save(self.epoch, self.step)

    def too_large(self, words: str) -> UserError:
        """The error for a batch that did not fit, with the size that does; `words` is the allocator's message."""
        where = f"epoch {self.epoch + 1}, step {self.step + 1}"
        size, batch = self._options.batch_size, self._batch
        if distributed.size() > 1:
            tried = f"{size // distributed.size()} of it in each of {distributed.size()} processes; a smaller one was not tried"
            return out_of_memory.explained(size, where, words, None, tried)
        if batch is None:
            held = (
                "main memory" if self._fabric.device.type == "cpu" else "GPU (pretraining.pack_on_gpu=0 keeps the pack out of it)"
            )
            return out_of_memory.explained(size, where, words, None, f"its views did not fit into the {held}")

        def attempt(count: int) -> None:
            self._optimizer.zero_grad(set_to_none=True)
            part = self._fabric.to_device((batch.views[:, :count], batch.slots[:count]))
            self._fabric.backward(self._model(*part).loss)

        fits = out_of_memory.largest_that_fits(size, 2 if self._objective.plan.paired else 1, attempt)
        tried = "a forward and backward pass of it was tried here" if fits else "not even the smallest batch passed here"
        return out_of_memory.explained(size, where, words, fits, tried)


def _judge(probe: Probe, network: nn.Module) -> float:
    network.eval()
    try:
        return probe(network)
    finally:
        network.train()


def _number(*what: int) -> int:
    """A distinct number for each (seed, epoch) or (seed, epoch, step)."""
    return int(np.random.SeedSequence(what).generate_state(1)[0])


def _gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients, on their device; infinite or NaN if any of them is."""
    return get_total_norm([p.grad for p in parameters if p.grad is not None])
