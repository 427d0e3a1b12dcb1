"""Stopped or killed between any two steps, training resumes to the same figures and weights; errors name their cause."""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import RGB, Preprocessing
from caco_assets.pretraining.objectives import IMPROVED, Objective, ObjectiveConfig, build
from caco_assets.pretraining.training.best_encoder import keep_best
from caco_assets.pretraining.training.checkpoint import BEST, read
from caco_assets.pretraining.training.loop import train
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.pretrain import make_encoder, open_loader
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.stop_request import Stopped, StopRequest
from caco_assets.settings import Pretraining

PLACES, STEPS, EPOCHS = 8, 6, 3


@dataclass(frozen=True)
class Batch:
    views: Tensor
    slots: Tensor


class Killed(BaseException):
    """Stands for `kill -9`: nothing catches it, nothing is written after it."""


class Batches:
    """Random views, a pure function of epoch and step; `at` is called before a step, counted over all epochs."""

    steps_per_epoch = STEPS

    def __init__(self, at: Callable[[int], None] = lambda step: None) -> None:
        self._at = at

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, STEPS):
            self._at(epoch * STEPS + step)
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            places = torch.randperm(PLACES, generator=generator)[:4]
            yield Batch(torch.randn(4, 8, 3, 9, 9, generator=generator), torch.stack([2 * places, 2 * places + 1], 1).flatten())


class Network(nn.Sequential):
    """Dropout draws from torch's generator: resumption must bring that back too."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)
        )


def objective() -> Objective:
    config = ObjectiveConfig(slots=2 * PLACES, embedding_dim=7, queue_size=32, momentum=0.9, switches=IMPROVED)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("caco", config, Network(), features=6, seed=0)


def options(**changes: object) -> Pretraining:
    values = {"batch_size": 8, "queue_size": 32, "epochs": EPOCHS, "momentum": 0.9, "device": "cpu", "embedding_dim": 7}
    return Pretraining(**{**values, **changes})


def run(folder: Path, batches: Batches, opts: Pretraining | None = None, **arguments: object) -> Objective:
    folder.mkdir(exist_ok=True)
    made = arguments.pop("objective", None) or objective()
    train(made, batches, RunConfig(pack=folder, target=folder, pretraining=opts or options()), **arguments)
    return made


def without_times(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in read_metrics(folder / "metrics.jsonl")]


def assert_same(folder: Path, ours: Objective, whole: tuple[Path, Objective]) -> None:
    assert without_times(folder) == without_times(whole[0])
    for (key, mine), theirs in zip(ours.state_dict().items(), whole[1].state_dict().values(), strict=True):
        assert torch.equal(torch.nan_to_num(mine), torch.nan_to_num(theirs)), key


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Objective]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, Batches())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(0, STEPS * EPOCHS - 1), min_size=1, max_size=3), every_step=st.booleans())
def test_killed_before_any_step_it_ends_the_same(tmp_path_factory, whole, kills: list[int], every_step: bool) -> None:
    folder = tmp_path_factory.mktemp("parts")
    opts = options(checkpoint_minutes=1e-9 if every_step else 10, checkpoint_every=2)

    def kill(step: int) -> None:
        if kills and step >= kills[0]:
            kills.pop(0)
            raise Killed

    while kills:
        try:
            run(folder, Batches(kill), opts)
        except Killed:
            continue
    assert_same(folder, run(folder, Batches(), opts), whole)


@pytest.mark.parametrize("steps", [[0], [STEPS - 1], [STEPS], [1, 2, STEPS + 1], [STEPS * EPOCHS - 1]])
def test_stopped_on_request_after_any_step_no_step_is_made_twice(logged, tmp_path: Path, whole, steps: list[int]) -> None:
    made: list[int] = []
    for step in steps:
        stop = StopRequest()

        def at(now: int, stop: StopRequest = stop, wanted: int = step) -> None:
            made.append(now)
            if now == wanted:
                stop.ask(15)

        with pytest.raises(Stopped):
            run(tmp_path, Batches(at), stop=stop)
    said = logged()
    last = run(tmp_path, Batches(made.append))
    assert made == list(range(STEPS * EPOCHS))
    assert "resuming after epoch" in said[0]
    assert_same(tmp_path, last, whole)


def test_the_best_encoder_by_the_probe_is_kept_and_a_resumed_training_remembers_it(tmp_path: Path) -> None:
    scores = iter([0.3, 0.9, 0.5])
    seen: list[Tensor] = []

    def probe(network: nn.Module) -> float:
        seen.append(network.state_dict()["0.weight"].clone())
        return next(scores)

    def kill(step: int) -> None:
        if step == 2 * STEPS:
            raise Killed

    opts = options(probe_every=1)
    with pytest.raises(Killed):
        run(tmp_path, Batches(kill), opts, probe=probe)
    run(tmp_path, Batches(), opts, probe=probe)
    best = read(tmp_path / BEST)
    assert (best["epoch"], best["probe"]) == (1, 0.9)
    assert torch.equal(best["encoder"]["0.weight"], seen[1])


def test_a_gradient_that_is_not_finite_names_the_step_that_made_it(tmp_path: Path) -> None:
    made, calls = objective(), 0

    def spoil(gradient: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient * torch.inf if calls == STEPS + 2 else gradient

    made.encoder_q[0].weight.register_hook(spoil)
    with pytest.raises(
        UserError, match=rf"grad_norm=(nan|inf) at epoch 2, step {STEPS + 2} \(slots \d+, .*the last checkpoint is kept"
    ):
        run(tmp_path, Batches(), objective=made)
    # the checkpoint holds what was before it
    assert read(tmp_path / "checkpoint.pt")["step"] == STEPS
    assert all(torch.isfinite(value).all() for value in read(tmp_path / "checkpoint.pt")["optimiser"]["state"][0].values())


def test_a_diverged_training_writes_down_the_places_and_dates_of_the_batch(tmp_path: Path, make_pack) -> None:
    opts = Pretraining(
        backbone="test_resnet", image_size=32, batch_size=8, queue_size=32, epochs=2, threads=1, device="cpu", learning_rate=1e30
    )
    config = RunConfig(pack=make_pack(tmp_path / "pack"), target=tmp_path / "out", pretraining=opts, seed=3)
    with pytest.raises(UserError, match=r"training has diverged; .*; its places and dates are in .*bad_batch.json"):
        make_encoder(config)
    bad = json.loads((tmp_path / "out" / "bad_batch.json").read_text())
    drawn = open_loader(config).sampler.drawn(bad["epoch"], bad["step_in_epoch"])
    assert [sample["slot"] for sample in bad["samples"]] == drawn.slots.tolist()
    assert [sample["dates"] for sample in bad["samples"]] == drawn.dates.tolist()
    assert bad["samples"][0]["location_id"] == f"L{drawn.slots[0] // 2:07d}"
    assert (bad["seed"], bad["figure"] in ("loss", "grad_norm")) == (3, True)


class Hungry(Network):
    """Refuses images by the number, as an allocator does by the byte."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self._most, self._error = most, error

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self._most:
            raise self._error
        return super().forward(images)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 7 GiB for an array"),
    ],
)
def test_out_of_memory_is_answered_with_a_batch_size_that_was_tried(tmp_path: Path, error: Exception) -> None:
    config = ObjectiveConfig(slots=2 * PLACES, embedding_dim=7, queue_size=32, switches=IMPROVED)
    small = build("caco", config, Hungry(5, error), features=6, seed=0)
    with pytest.raises(
        UserError, match=r"batch_size=8: out of memory at epoch 1, step 1 .*; 4 fits \(a forward and backward pass"
    ) as said:
        run(tmp_path / "some", Batches(), objective=small)
    assert "\n" not in str(said.value)
    assert "set pretraining.batch_size=4" in str(said.value)
    none = build("caco", config, Hungry(1, error), features=6, seed=0)
    with pytest.raises(UserError, match=r"not even the smallest batch passed here; lower it"):
        run(tmp_path / "none", Batches(), objective=none)


def test_views_that_do_not_fit_into_memory_are_the_batchs_fault_too(tmp_path: Path) -> None:
    def full(step: int) -> None:
        raise np._core._exceptions._ArrayMemoryError((4, 8), np.dtype(float))

    with pytest.raises(
        UserError, match=r"out of memory at epoch 1, step 1 .*; its views did not fit into the main memory; lower it"
    ):
        run(tmp_path, Batches(full))


def test_an_error_that_is_no_lack_of_memory_stays_what_it_is(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path, Batches(fail))


def test_the_best_encoder_is_part_of_the_product_in_a_folder_of_its_own(tmp_path: Path) -> None:
    target = Preprocessing.of_pack(RGB, "seco", 32)
    last, best = (Encoder.random("test_resnet", target, seed) for seed in (0, 1))
    torch.save({"epoch": 4, "step": 9, "probe": 0.75, "encoder": best.backbone.state_dict()}, tmp_path / BEST)
    keep_best(tmp_path, last, {"seed": 0}, {"pack": "abc"})
    assert Encoder.load(tmp_path / "best").identity == best.identity
    assert json.loads((tmp_path / "best" / "encoder.json").read_text())["data"] == {"pack": "abc", "epoch": 4, "probe": 0.75}
    assert not (tmp_path / BEST).exists()


@pytest.mark.systems
def test_memory_that_really_ends_is_answered_with_a_batch_that_fits(tmp_path: Path, make_pack) -> None:
    """A process that may not grow: the allocator's own refusal, on the way from the pack to the step."""
    pack = make_pack(tmp_path / "pack", places=128)
    code = f"""
        import resource
        from pathlib import Path
        import torch
        from caco_assets.core.errors import UserError
        from caco_assets.pretraining.training.pretrain import make_encoder
        from caco_assets.pretraining.training.run_config import RunConfig
        from caco_assets.settings import Pretraining

        pack = Path({str(pack)!r})
        sizes = dict(backbone="resnet18", image_size=160, queue_size=256, epochs=1, threads=1, device="cpu")
        small = Pretraining(batch_size=4, objective="moco_v2", **sizes)

        class Enough(Exception):
            pass

        class First:
            def log(self, step, values):
                raise Enough

        try:  # everything is loaded and compiled before the limit falls
            make_encoder(RunConfig(pack=pack, target={str(tmp_path / "small")!r}, pretraining=small), sinks=[First()])
        except Enough:
            pass
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 900 * 2**20, -1))
        try:
            large = Pretraining(batch_size=128, objective="moco_v2", **sizes)
            make_encoder(RunConfig(pack=pack, target={str(tmp_path / "large")!r}, pretraining=large))
        except UserError as error:
            print("SAID", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    found = re.search(r"batch_size=128: out of memory at epoch 1, step 1 .*; (\d+) fits \(a forward and backward pass", said)
    assert found, said
    assert 2 <= int(found[1]) < 128
