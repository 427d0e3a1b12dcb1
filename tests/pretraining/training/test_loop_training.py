"""The training loop: exact resumption, figures, schedules, and what stops it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.objectives import FIDELITY, OBJECTIVES, Objective, ObjectiveConfig, build
from caco_assets.pretraining.training.loop import learning_rate, train
from caco_assets.pretraining.training.metrics_log import JsonLines, draw_loss_curve, read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Pretraining

PLACES, STEPS = 8, 12


@dataclass(frozen=True)
class Batch:
    views: Tensor
    slots: Tensor


class Batches:
    """Random views of `PLACES` places, a pure function of epoch and step; `spoil` makes one step's pixels infinite."""

    steps_per_epoch = STEPS

    def __init__(self, views: int, spoil: tuple[int, int] | None = None) -> None:
        self._views, self._spoil = views, spoil

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            views = torch.randn(self._views, 8, 3, 9, 9, generator=generator)
            places = torch.randperm(PLACES, generator=generator)[:4]
            if (epoch, step) == self._spoil:
                views = views * torch.inf
            yield Batch(views, torch.stack([2 * places, 2 * places + 1], 1).flatten())


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class KillAt:
    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._step:
            raise Killed


def options(**changes) -> Pretraining:
    values = {"batch_size": 8, "queue_size": 32, "epochs": 3, "momentum": 0.9, "device": "cpu", "embedding_dim": 7}
    return Pretraining(**{**values, **changes})


def make(name: str = "caco", fidelity: str = "improved") -> Objective:
    lonlat = np.random.default_rng(0).uniform((-180, -60), (180, 70), (PLACES, 2))
    sizes = {"slots": 2 * PLACES, "embedding_dim": 7, "queue_size": 32, "geo_clusters": 4}
    config = ObjectiveConfig(**sizes, momentum=0.9, switches=FIDELITY[fidelity], lonlat=lonlat)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # dropout draws from torch's generator: resumption must bring that back too
        backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)
        )
    return build(name, config, backbone, features=6, seed=0)


def config(folder: Path, opts: Pretraining) -> RunConfig:
    folder.mkdir(exist_ok=True)
    return RunConfig(pack=folder, target=folder, pretraining=opts)


def run(folder: Path, opts: Pretraining, name: str = "caco", batches: Batches | None = None, **given: Any) -> Objective:
    objective = make(name)
    train(objective, batches or Batches(len(objective.plan.views)), config(folder, opts), **given)
    return objective


def test_adamw_resumes_bit_for_bit_too(tmp_path) -> None:
    opts = options(optimizer="adamw", learning_rate=0.001)
    whole = run(tmp_path / "whole", opts)
    with pytest.raises(Killed):
        run(tmp_path / "parts", opts, sinks=[KillAt(STEPS + 3)])
    resumed = run(tmp_path / "parts", opts)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    for (key, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(torch.nan_to_num(ours), torch.nan_to_num(theirs)), key
    assert not torch.equal(next(resumed.encoder_q.parameters()), next(run(tmp_path / "sgd", options()).encoder_q.parameters()))


def without_times(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("killed_at", [5, STEPS + 3, 2 * STEPS])
def test_killed_anywhere_training_goes_on_to_the_same_losses_and_weights_bit_for_bit(tmp_path, name, killed_at) -> None:
    whole = run(tmp_path / "whole", options(), name)
    with pytest.raises(Killed):
        run(tmp_path / "parts", options(), name, sinks=[KillAt(killed_at)])
    resumed = run(tmp_path / "parts", options(), name)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    for (key, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(torch.nan_to_num(ours), torch.nan_to_num(theirs)), key


def test_a_finished_training_that_is_called_again_trains_no_further(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", options())
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text()
    again = run(tmp_path / "whole", options())
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == lines
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)


def test_labels_appear_after_the_first_epoch_and_are_logged_with_it(tmp_path: Path) -> None:
    objective = run(tmp_path / "run", options(epochs=1))
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["seen_share"] == 1
    assert last["changed_share"] == (objective.get_buffer("change.label") == 1).float().mean().item()
    assert 0 < last["changed_share"] < 1
    assert last["change_threshold"] == pytest.approx(objective.get_buffer("change.threshold").item())


def test_every_step_and_every_epoch_leave_a_line_and_sinks_get_the_same(tmp_path: Path) -> None:
    class Memory(list):
        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.append({"step": step, **values})

    memory = Memory()
    run(tmp_path / "run", options(), sinks=[memory])
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines == memory
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 3 * STEPS + 1))
    epochs = [line for line in lines if "epoch_loss" in line]
    assert [line["step"] for line in epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    first = [line["loss"] for line in steps if line["epoch"] == 0]
    assert epochs[0]["epoch_loss"] == pytest.approx(sum(first) / STEPS)
    assert steps[0]["loss"] == pytest.approx(sum(steps[0][f"loss_{i}"] for i in range(3)), rel=1e-6)
    assert {"learning_rate", "embedding_std", "accuracy_0", "accuracy_2"} <= set(steps[0])


class Colours(Batches):
    """Each sample has a colour of its own, new in every step, and little noise: what a view shares with its key is learnable."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(epoch, start_step)):
            colour = torch.randn(8, 3, 1, 1, generator=torch.Generator().manual_seed(777_000 + 1000 * epoch + step))
            yield Batch(colour + 0.1 * batch.views, batch.slots)


@pytest.mark.parametrize("fidelity", FIDELITY)
def test_training_learns_what_standing_still_does_not_and_says_how_far_it_is(logged, tmp_path: Path, fidelity: str) -> None:
    said = logged()
    losses = []
    for name, rate in (("still", 1e-12), ("learning", 0.03)):
        opts = options(epochs=16, learning_rate=rate, milestones=())
        train(make("moco_v2", fidelity), Colours(2), config(tmp_path / name, opts))
        losses.append(read_metrics(tmp_path / name / "metrics.jsonl")[-1]["epoch_loss"])
    assert losses[1] < 0.9 * losses[0]
    assert "192/192" in said[-1]
    assert "epoch 16/16" in said[-1]
    assert "images/s" in said[-1]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss=nan at epoch 2, step 15 \(slots \d+, .*lower pretraining.learning_rate"):
        run(tmp_path / "run", options(), batches=Batches(4, spoil=(1, 2)))
    whole = run(tmp_path / "whole", options())
    resumed = run(tmp_path / "run", options())
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)


def test_a_checkpoint_of_another_training_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(tmp_path / "run", options(epochs=1, backbone="resnet18"))
    with pytest.raises(UserError, match=r"checkpoint.pt: made with backbone=resnet18, this run has backbone=resnet50"):
        run(tmp_path / "run", options(epochs=1, backbone="resnet50"))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint.pt: not a readable checkpoint; delete it"):
        run(tmp_path, options())


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"recipe": {}, "hook": Killed}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        run(tmp_path, options())


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"pretraining.device=cuda: this machine has no usable CUDA device; set it to cpu or auto"):
        run(tmp_path, options(device="cuda"))


def test_the_probe_sees_the_query_encoder_in_evaluation_mode_at_its_interval(tmp_path: Path) -> None:
    modes = []

    def probe(network: nn.Module) -> float:
        modes.append(network.training)
        return 0.5

    objective = run(tmp_path / "run", options(probe_every=2, epochs=5), probe=probe)
    assert modes == [False, False]
    assert objective.encoder_q.training
    probed = [line["epoch"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "probe" in line]
    assert probed == [1, 3]


def test_the_step_schedule_divides_by_ten_at_fractions_of_training() -> None:
    opts = options(epochs=10, learning_rate=1.0, milestones=(0.6, 0.8))
    rates = [learning_rate(step, 2, opts) for step in range(20)]
    assert rates == pytest.approx([1.0] * 12 + [0.1] * 4 + [0.01] * 4)


def test_the_cosine_schedule_warms_up_and_falls_towards_zero() -> None:
    opts = options(epochs=10, learning_rate=1.0, schedule="cosine", warmup_epochs=2)
    rates = [learning_rate(step, 2, opts) for step in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[-1] < 0.02


def test_opening_the_metrics_file_again_drops_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo')
    with JsonLines(path, keep_until=3) as lines:
        lines.log(4, {"loss": 2.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    draw_loss_curve(tmp_path / "curve.png", read_metrics(path))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_training_leaves_torchs_generator_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(tmp_path / "run", options(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
