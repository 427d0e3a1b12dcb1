"""Real processes train together: through torchrun and the command line, killed, stopped and resumed; and on Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from caco_assets.core.products import produce
from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import read_outcome
from caco_assets.settings import Pretraining, load_settings

pytestmark = [pytest.mark.integration, pytest.mark.systems]

BANDS = ("B04", "B03", "B02")
# timm's smallest network without batch norm, which CPUs cannot synchronise; 24 samples are 3 steps of an epoch
OPTIONS = {
    "backbone": "test_convnext",
    "image_size": 32,
    "batch_size": 8,
    "queue_size": 32,
    "epochs": 12,
    "learning_rate": 0.003,
    "threads": 1,
    "device": "cpu",
    "probe_every": 0,
}
PATIENCE_S = 300


class Chip:
    """Noise of one place and date."""

    lon = lat = 0.0

    def __init__(self, place: int, period: int, season: int) -> None:
        self.location_id, self.period, self.season = f"L{place:07d}", period, season
        generator = np.random.default_rng((place, period, season))
        self.pixels = generator.integers(1, 4000, (3, 40, 40), dtype=np.uint16)


def write_pack(folder: Path) -> dict:
    chips = (Chip(*where) for where in np.ndindex(12, 2, 3))
    sizes = {"chip_size": 40, "seasons": 3, "min_seasons": 3, "total": 72}
    return build(chips, folder, bands=BANDS, archive_bands=BANDS, stretch="seco", **sizes)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder)
    return folder


@pytest.fixture(scope="module")
def alone(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes, undisturbed."""
    target = tmp_path_factory.mktemp("alone") / "run"
    done = start(pack, target, launcher="process")
    assert done.communicate(timeout=PATIENCE_S)[1] is not None
    assert done.returncode == 0
    return target


def options(home: Path, **changes: object) -> Pretraining:
    """The smallest profile's, as the command line has them."""
    return load_settings("tiny", home=home, pretraining={**OPTIONS, **changes}).pretraining


def start(pack: Path, target: Path, **changes: object) -> subprocess.Popen[str]:
    """A training by the command line of its launcher."""
    config = RunConfig(pack=pack, target=target, pretraining=options(target.parent, **changes))
    file = target.with_name("config.json")
    file.write_text(config.model_dump_json())
    # as a user starts it: warnings of libraries are no errors
    return subprocess.Popen(command(file, config.pretraining), stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers(process: subprocess.Popen[str]) -> dict[str, int]:
    """RANK → process id of the processes that torchrun has started."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_text().split("\0")
        found |= {line.removeprefix("RANK="): int(child) for line in environment if line.startswith("RANK=")}
    return found


def finished_steps(target: Path) -> int:
    metrics = target / "metrics.jsonl"
    return max([line["step"] for line in read_metrics(metrics)], default=0) if metrics.exists() else 0


def assert_same_product(ours: Path, theirs: Path) -> None:
    mine, yours = ([line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line] for folder in (ours, theirs))
    assert [line["step"] for line in mine] == [line["step"] for line in yours] == list(range(1, 37))
    for a, b in zip(mine, yours, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3), a["step"]
    weights = [load_file(folder / "encoder.safetensors") for folder in (ours, theirs)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], rtol=1e-2, atol=1e-4, err_msg=name)


def test_training_killed_and_stopped_in_two_processes_resumes_in_one(pack: Path, alone: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"

    killed = start(pack, target, launcher="torchrun", processes=2)
    wait_until((target / "checkpoint.pt").exists, killed)
    os.kill(workers(killed)["1"], signal.SIGKILL)
    said = killed.communicate(timeout=PATIENCE_S)[1].splitlines()
    assert killed.returncode == 2
    assert "process 2 of 2 was killed by SIGKILL" in said[-1]
    assert all(line.startswith("pretrain: ") for line in said), said
    assert (target / "checkpoint.pt").exists()
    assert read_outcome(target)["message"] == said[-1].removeprefix("pretrain: ")

    before = finished_steps(target)
    stopped = start(pack, target, launcher="torchrun", processes=2)
    wait_until(lambda: finished_steps(target) > before + 3, stopped)
    stopped.terminate()
    said = stopped.communicate(timeout=PATIENCE_S)[1].splitlines()
    assert stopped.returncode == 143
    assert "resuming after epoch" in said[0]
    assert said[-1] == "pretrain: stopped by SIGTERM, with a checkpoint; the same command resumes from it"

    # and with another number of processes
    last = start(pack, target, launcher="process")
    assert "resuming after epoch" in last.communicate(timeout=PATIENCE_S)[1]
    assert last.returncode == 0
    assert_same_product(target, alone)


def test_the_command_line_trains_in_two_processes_and_reuses_what_they_made(alone: Path, tmp_path: Path) -> None:
    several = {**OPTIONS, "launcher": "torchrun", "processes": 2}
    settings = load_settings("tiny", home=tmp_path, pretraining=several)
    produce("pack", settings.paths.pack, records=settings.paths.records, recipe="test", inputs={}, make=write_pack)
    environment = {f"CACO_PRETRAINING__{name.upper()}": str(value) for name, value in several.items()}
    line = [sys.executable, "-m", "caco_assets.cli", "pretrain", "--profile", "tiny"]
    environment = {**os.environ, **environment, "CACO_HOME": str(tmp_path)}
    first, again = (subprocess.run(line, env=environment, text=True, capture_output=True, check=False) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "36/36" in first.stderr
    assert_same_product(settings.paths.encoder, alone)
    assert again.returncode == 0
    assert "36/36" not in again.stderr


def test_settings_that_cannot_work_are_one_line_from_all_processes(pack: Path, tmp_path: Path) -> None:
    process = start(pack, tmp_path / "run", launcher="torchrun", processes=2, batch_size=6, queue_size=36)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "batch_size=6: must be a multiple of 4 (pairs of periods × processes)" in said


def test_two_workers_of_a_ray_cluster_make_what_one_process_makes(pack: Path, alone: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    process = start(pack, target, launcher="ray", processes=2)
    said = process.communicate(timeout=2 * PATIENCE_S)[1].splitlines()
    assert process.returncode == 0, said
    assert all(line.startswith("pretrain: ") for line in said), said
    assert any("36/36" in line for line in said), said
    assert_same_product(target, alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "run", "run.lock", "run.outcome.json"]


def test_a_ray_cluster_without_the_gpus_asked_for_is_refused(pack: Path, tmp_path: Path) -> None:
    config = RunConfig(pack=pack, target=tmp_path / "run", pretraining=options(tmp_path, device="cuda"))
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    line = [sys.executable, "-m", "caco_assets.pretraining.launch.ray_train", "64", str(tmp_path / "config.json")]
    done = subprocess.run(line, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pretraining.processes × nodes = 64: the Ray cluster has " in done.stderr
