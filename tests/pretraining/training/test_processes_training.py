"""Two processes that share each batch give what one process gives: every objective, over several epochs, up to rounding."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import log_to
from caco_assets.pretraining import distributed
from caco_assets.pretraining.objectives import FIDELITY, OBJECTIVES, Objective, ObjectiveConfig, build
from caco_assets.pretraining.training.fabric import leave
from caco_assets.pretraining.training.loop import train
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Pretraining

pytestmark = pytest.mark.systems

PLACES, STEPS, EPOCHS, PROCESSES = 16, 3, 3, 2
# float32 sums in another order, over a dozen steps; what is wrong by one row is wrong by more than a hundredth
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Batch:
    views: Tensor
    slots: Tensor


class Batches:
    """Random views, a pure function of epoch and step; this process's slice of each batch."""

    steps_per_epoch = STEPS

    def __init__(self, views: int, spoil: tuple[int, int] | None = None) -> None:
        self._views, self._spoil = views, spoil

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, STEPS):
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            views = torch.randn(self._views, 8, 3, 9, 9, generator=generator)
            places = torch.randperm(PLACES, generator=generator)[:4]
            if (epoch, step) == self._spoil:
                views[:, -1] *= torch.inf
            slots = torch.stack([2 * places, 2 * places + 1], 1).flatten()
            yield Batch(distributed.mine(views, 1), distributed.mine(slots))


def options(**changes: Any) -> Pretraining:
    values = {"batch_size": 8, "queue_size": 32, "epochs": EPOCHS, "momentum": 0.9, "device": "cpu"}
    values |= {"embedding_dim": 7, "milestones": ()}
    return Pretraining(**{**values, **changes})


def make(name: str, norm: nn.Module | None = None, fidelity: str = "improved") -> Objective:
    lonlat = np.random.default_rng(0).uniform((-180, -60), (180, 70), (PLACES, 2))
    sizes = {"slots": 2 * PLACES, "embedding_dim": 7, "queue_size": 32, "geo_clusters": 4}
    config = ObjectiveConfig(**sizes, momentum=0.9, switches=FIDELITY[fidelity], lonlat=lonlat)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3, 2), norm or nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return build(name, config, nn.Sequential(*layers), features=6, seed=0)


class AnyLength(RunConfig):
    """Lets a checkpoint of fewer epochs be resumed: stands for a training that was stopped after them."""

    @property
    def training_config(self) -> dict[str, Any]:
        return {"backbone": "tiny"}


def run(folder: Path, name: str, objective: Objective | None = None, spoil: tuple[int, int] | None = None, **changes: Any) -> dict:
    """Train in `folder`; the state at the end, and what was said."""
    folder.mkdir(parents=True, exist_ok=True)
    objective = objective or make(name)
    said: list[str] = []
    batches = Batches(len(objective.plan.views), spoil)
    with log_to(lambda _level, line: said.append(line)):
        train(objective, batches, AnyLength(pack=folder, target=folder, pretraining=options(**changes)))
    return {"state": {key: value.clone() for key, value in objective.state_dict().items()}, "said": said}


def vectors(seed: int, rows: int = 8) -> list[Tensor]:
    """Blocks (E, N, C) and (E, V, N, C)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, rows, 5, generator=generator), torch.randn(2, 3, rows, 5, generator=generator)]


def loss_of_own_rows(blocks: Sequence[Tensor], *, own: bool) -> Tensor:
    """Some loss of this process's rows against everyone's; with `own` the columns take no gradient."""
    queries, keys = blocks
    columns = (keys.detach() if own else keys).flatten(0, 1).flatten(0, 1)  # (E·V·N, C)
    return (distributed.mine(queries, 1) @ columns.T).sin().mean()


def gradients(*, own: bool) -> list[Tensor]:
    """Of `loss_of_own_rows`, for the rows of this process."""
    blocks = [distributed.mine(block, -2).clone().requires_grad_() for block in vectors(0)]
    loss_of_own_rows(distributed.share(blocks, everyones_gradient=not own), own=own).backward()
    return [torch.zeros_like(block) if block.grad is None else block.grad for block in blocks]


# Part of the pair: run as a program, once per process.


def member(folder: Path) -> None:
    """Everything that the tests below look at, by one of the processes."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=PROCESSES)
    found: dict[str, Any] = {name: run(folder / name, name) for name in OBJECTIVES}
    found["reference"] = run(folder / "reference", "caco", make("caco", fidelity="reference"), epochs=1)
    found["resumed"] = run(folder / "resumed", "caco")
    run(folder / "handed over", "caco", epochs=2)
    found["batch norm"] = run(folder / "batch norm", "moco_v2", make("moco_v2", nn.BatchNorm2d(6)), epochs=1)
    try:
        run(folder / "diverged", "caco", spoil=(1, 1))
    except UserError as error:
        found["diverged"] = str(error)
    found["gradients"] = {own: gradients(own=own) for own in (True, False)}
    found["mean"] = distributed.mean(torch.tensor([1.0, rank]))
    found["largest"] = [distributed.largest(number) for number in (0, rank, 5 * (1 - rank))]
    found["files"] = sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*.{rank}"))
    torch.save(found, folder / f"found-{rank}.pt")
    leave()


def start_pair(folder: Path) -> list[subprocess.Popen[str]]:
    """The two processes, as torchrun would start them, but meeting over a file."""
    started = []
    for rank in range(PROCESSES):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
        environment = os.environ | {name: str(value) for name, value in place.items()}
        command = [sys.executable, "-W", "error::FutureWarning", __file__, str(folder)]
        started.append(subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return started


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what one process makes."""
    return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Folder of what two processes make, and what each of them has found."""
    folder = tmp_path_factory.mktemp("pair")
    # one process begins what two go on with
    run(folder / "resumed", "caco", epochs=1)
    ended = [(process.communicate(timeout=300)[0], process.returncode) for process in start_pair(folder)]
    assert [status for _, status in ended] == [0, 0], "\n".join(text for text, _ in ended)
    return folder, [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def lines(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in read_metrics(folder / "metrics.jsonl")]


def assert_same_training(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our == pytest.approx(their, rel=2e-4, abs=2e-5)


def assert_same_state(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for key, value in ours.items():
        # the ratio of a short distance near zero multiplies rounding
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if key.startswith("change.") and value.is_floating_point() else CLOSE
        torch.testing.assert_close(value, theirs[key], **tolerance, equal_nan=True, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_make_the_losses_queue_change_state_and_weights_of_one(one: Path, pair, name: str) -> None:
    folder, found = pair
    alone = run(one / name, name)
    assert_same_training(lines(folder / name), lines(one / name))
    assert_same_state(found[0][name]["state"], alone["state"])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_process_holds_the_same_state_bit_for_bit(pair, name: str) -> None:
    first, second = (found[name]["state"] for found in pair[1])
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def test_labels_of_an_unseeded_mixture_are_the_first_processs(pair) -> None:
    first, second = (found["reference"]["state"] for found in pair[1])
    assert set(first["change.label"].tolist()) >= {0, 1}
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def test_two_processes_resume_from_the_checkpoint_of_one(one: Path, pair) -> None:
    folder, found = pair
    assert any("resuming after epoch 1 of 3" in line for line in found[0]["resumed"]["said"])
    alone = run(one / "caco", "caco")
    assert_same_training(lines(folder / "resumed"), lines(one / "caco"))
    assert_same_state(found[0]["resumed"]["state"], alone["state"])


def test_one_process_resumes_from_the_checkpoint_of_two(one: Path, pair) -> None:
    folder, _ = pair
    handed_over = run(folder / "handed over", "caco")
    alone = run(one / "caco", "caco")
    assert any("resuming after epoch 2 of 3" in line for line in handed_over["said"])
    assert_same_training(lines(folder / "handed over"), lines(one / "caco"))
    assert_same_state(handed_over["state"], alone["state"])


def test_only_the_first_process_speaks(pair) -> None:
    first, second = pair[1]
    assert any("9/9" in line for line in first["caco"]["said"])
    assert [found["said"] for name, found in second.items() if name in OBJECTIVES] == [[]] * len(OBJECTIVES)


def test_batch_norm_that_cannot_be_synchronised_is_said_in_one_line(pair) -> None:
    first, second = pair[1]
    warnings = [line for line in first["batch norm"]["said"] if "on CPUs batch norm" in line]
    assert len(warnings) == 1
    assert "in each of the 2 processes alone" in warnings[0]
    assert not second["batch norm"]["said"]
    assert not any("batch norm" in line for line in first["caco"]["said"])


def test_a_loss_that_is_not_finite_in_one_process_stops_all_with_the_batch_of_all(pair) -> None:
    folder, (first, second) = pair
    assert first["diverged"] == second["diverged"]
    assert "loss=nan at epoch 2, step 5" in first["diverged"]
    slots = next(batch.slots for step, batch in enumerate(Batches(4).epoch(1)) if step == 1)
    assert ", ".join(str(slot) for slot in slots.tolist()) in first["diverged"]
    assert [line["step"] for line in read_metrics(folder / "diverged" / "metrics.jsonl")] == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("own", [True, False])
def test_gradients_averaged_over_processes_are_those_of_one(pair, own: bool) -> None:
    blocks = [block.requires_grad_() for block in vectors(0)]
    loss_of_own_rows(blocks, own=own).backward()
    for k, block in enumerate(blocks):
        # what data-parallel training averages over processes, each with its own rows
        together = torch.cat([found["gradients"][own][k] for found in pair[1]], dim=-2) / PROCESSES
        torch.testing.assert_close(together, torch.zeros_like(block) if block.grad is None else block.grad)


def test_means_and_largest_numbers_are_of_all_processes(pair) -> None:
    for found in pair[1]:
        assert found["mean"].tolist() == [1.0, 0.5]
        assert found["largest"] == [0, 1, 5]


def test_one_process_gives_back_what_it_is_given() -> None:
    rows = torch.randn(4, 3)
    assert distributed.gather(rows) is rows
    assert distributed.share([rows], everyones_gradient=True)[0] is rows
    assert distributed.mine(rows) is rows
    assert distributed.mean(rows) is rows
    assert distributed.largest(3) == 3
    assert (distributed.rank(), distributed.size()) == (0, 1)


if __name__ == "__main__":
    member(Path(sys.argv[1]))
