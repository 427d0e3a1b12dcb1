"""How several processes are started and ended, and what cannot work is said in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining import distributed
from caco_assets.pretraining.launch import ray_train, torchrun
from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.launch.worker import LOST_ANOTHER, lost_another, report_outcome, run_worker
from caco_assets.pretraining.training.fabric import join, pick_device, share_of_cores, synchronise_batch_norm
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import DONE, ERROR, STOPPED, read_outcome, write_outcome
from caco_assets.pretraining.training.stop_request import StopRequest
from caco_assets.settings import Pretraining


@pytest.mark.parametrize(
    ("launcher", "several", "line"),
    [
        ("process", {}, ["caco_assets.pretraining.train", "c.json"]),
        ("torchrun", {"processes": 4}, ["caco_assets.pretraining.launch.torchrun", "4", "c.json"]),
        ("ray", {"processes": 4, "nodes": 2}, ["caco_assets.pretraining.launch.ray_train", "8", "c.json"]),
    ],
)
def test_each_launcher_is_one_command_line(launcher: str, several: dict[str, int], line: list[str]) -> None:
    assert command(Path("c.json"), Pretraining(launcher=launcher, **several)) == [sys.executable, "-m", *line]


def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that torchrun gives the second of two processes."""
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def test_more_processes_than_gpus_are_refused_before_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    two_processes(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UserError, match=r"pretraining.processes=2: each needs a CUDA device .* has 1 .* set it to 1, or .*device to cpu"
    ):
        join(Pretraining(device="cuda"))
    assert pick_device(Pretraining(device="cpu")) == ("cpu", "32-true")


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(7)))
    assert share_of_cores(Pretraining()) == 7
    two_processes(monkeypatch)
    assert share_of_cores(Pretraining()) == 3
    assert share_of_cores(Pretraining(threads=5)) == 5


def test_batch_norm_is_synchronised_on_gpus_with_the_same_weights_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    class OnGpu:
        device = torch.device("cuda", 0)

    monkeypatch.setattr(distributed, "size", lambda: 2)
    # timm's norms that hold an activation too
    for network in (timm.create_model("test_efficientnet"), timm.create_model("test_resnet")):
        objective = nn.ModuleDict({"encoder_q": network, "norm": nn.BatchNorm1d(3)})
        before = dict(objective.named_parameters())
        names = list(objective.state_dict())
        synchronise_batch_norm(objective, OnGpu())  # pyright: ignore[reportArgumentType]
        assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
        assert not any(type(module).__name__ in ("BatchNorm2d", "BatchNormAct2d", "BatchNorm1d") for module in objective.modules())
        assert all(parameter is before[name] for name, parameter in objective.named_parameters())
        assert list(objective.state_dict()) == names


def test_a_process_that_was_killed_is_named_with_its_signal(logged, tmp_path: Path) -> None:
    said = logged()
    assert report_outcome(tmp_path / "run", torchrun.ended(1, 4, -9)) == 2
    assert len(said) == 1
    assert "process 2 of 4 was killed by SIGKILL, most often because memory ran out" in said[0]
    assert "the last checkpoint is kept" in said[0]
    assert read_outcome(tmp_path / "run") == {"status": ERROR, "message": said[0].removeprefix("pretrain: ")}


def test_what_a_process_has_left_word_of_is_told_instead(logged, tmp_path: Path) -> None:
    said = logged()
    write_outcome(tmp_path / "run", ERROR, message="pretraining.batch_size=6: must be even")
    assert report_outcome(tmp_path / "run", "process 1 of 2 ended with status 2") == 2
    assert said == ["pretrain: pretraining.batch_size=6: must be even"]
    write_outcome(tmp_path / "run", STOPPED, signum=15)
    assert report_outcome(tmp_path / "run", "process 1 of 2 ended with status 143") == 143
    assert len(said) == 1


def test_a_process_that_loses_another_ends_without_a_word_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [
        RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1"),
        torch.distributed.DistBackendError("x"),
    ]
    config = RunConfig(pack=tmp_path, target=tmp_path / "run")
    for error in errors:

        def fails(*arguments: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr("caco_assets.pretraining.launch.worker.run", fails)
        assert run_worker(config, StopRequest()) == LOST_ANOTHER
    assert not lost_another(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("arguments", [[], ["2"], ["two", "c.json"], ["0", "c.json"]])
def test_a_wrong_command_line_is_answered_with_the_right_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for program in (torchrun, ray_train):
        assert program.main(arguments) == 2
        assert capsys.readouterr().err.startswith(f"usage: python -m {program.__name__} ")


@pytest.mark.parametrize("program", ["train", "launch.torchrun", "launch.ray_train"])
def test_a_program_run_with_dash_m_prints_its_usage(program: str) -> None:
    line = [sys.executable, "-m", f"caco_assets.pretraining.{program}"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"usage: python -m caco_assets.pretraining.{program} ")
    assert ended.stderr.count("\n") == 1


def test_a_config_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for program in (torchrun, ray_train):
        assert program.main(["2", str(tmp_path / "none.json")]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "none.json: there is no such file" in line


def test_ray_that_is_not_installed_is_said_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ray", "ray.train", "ray.train.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"pack": str(tmp_path / "pack"), "target": str(tmp_path / "run")}))
    assert ray_train.main(["2", str(config)]) == 2
    assert 'pretraining.launcher=ray: ray is not installed here; pip install "ray[train]"' in capsys.readouterr().err


def test_a_request_to_stop_reaches_workers_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(ray_train, "_POLL_S", 0.01)
    with ray_train.stop_request_from(tmp_path / "stop") as stop:
        time.sleep(0.05)
        assert stop.signum is None
        (tmp_path / "stop").write_text("15")
        deadline = time.monotonic() + 60
        while stop.signum is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stop.signum == 15


def test_paths_are_the_same_to_processes_with_other_working_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ray_train.absolute(RunConfig(pack=Path("pack"), target=Path("run"), probe=Path("/elsewhere")))
    assert (config.pack, config.target, config.probe, config.truth) == (
        tmp_path / "pack",
        tmp_path / "run",
        Path("/elsewhere"),
        None,
    )


def test_an_outcome_of_an_earlier_training_is_no_outcome_of_this_one(logged, tmp_path: Path) -> None:
    write_outcome(tmp_path / "run", DONE, facts={})
    said = logged()
    report_outcome(tmp_path / "run", torchrun.ended(0, 2, 1))
    assert "process 1 of 2 ended with status 1" in said[0]
