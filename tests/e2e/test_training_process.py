"""The encoder asset trains in a separate process: live in the event log, canceled with a checkpoint, resumed later."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.cli import main
from caco_assets.pretraining.training.metrics_log import read_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.systems]

# long enough to be stopped on the way: progress is logged every five seconds
EPOCHS = "24"
MATERIALIZE = ["asset", "materialize", "--select", "encoder", "-m", "caco_assets.definitions"]


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CACO_HOME": str(home),
        "CACO_PROFILE": "tiny",
        "CACO_PRETRAINING__EPOCHS": EPOCHS,
        "CACO_PRETRAINING__THREADS": "1",
        "DAGSTER_HOME": str(home / "dagster"),
    }


def _run(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> None:
    for name, value in _environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0


def _lines(home: Path, status: dg.DagsterRunStatus | None = None) -> list[str]:
    """Messages of the newest run in Dagster's event log."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = instance.get_runs(limit=1)
        if not runs:
            return []
        if status is not None:
            assert runs[0].status == status
        return [entry.user_message for entry in instance.all_logs(runs[0].run_id)]


def _children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], text=True, capture_output=True, check=False)
    return [int(word) for word in done.stdout.split()]


def test_cancelled_in_dagster_training_stops_with_a_checkpoint_and_resumes_to_the_same_weights(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    home, whole = tmp_path / "home", tmp_path / "whole"
    for copy in (home, whole):
        shutil.copytree(tiny_home, copy, symlinks=True)
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    dagster = [str(Path(sys.executable).with_name("dagster")), *MATERIALIZE]
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        instance.all_logs("none")  # its databases are made by one process alone
        assert instance.get_runs() == []
    log = (tmp_path / "dagster.log").open("w")
    with log, subprocess.Popen(dagster, env=_environment(home), cwd=home, stderr=log) as run:
        deadline = time.monotonic() + 240
        while not any("images/s" in line for line in _lines(home)):
            assert run.poll() is None, (tmp_path / "dagster.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(2)
        (training,) = [pid for pid in _children(run.pid) if "pretraining.train" in Path(f"/proc/{pid}/cmdline").read_text()]
        # what Dagster does on *Terminate*: it notes the request, then interrupts the process of the run
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            instance.report_run_canceling(instance.get_runs(limit=1)[0])
        run.send_signal(signal.SIGTERM)
        run.wait(timeout=240)
    assert not Path(f"/proc/{training}").exists()
    root = home / "workspace" / "tiny"
    (checkpoint,) = root.glob(".encoder.partial-*/checkpoint.pt")
    assert json.loads(next(root.glob(".encoder.partial-*.outcome.json")).read_text())["status"] == "stopped"
    stopped_at = read_metrics(checkpoint.with_name("metrics.jsonl"))[-1]["step"]
    assert any("with a checkpoint; the same command resumes from it" in line for line in _lines(home))
    assert not (root / "encoder").exists()
    _lines(home, dg.DagsterRunStatus.CANCELED)

    subprocess.run(dagster, env=_environment(home), cwd=home, stderr=subprocess.DEVNULL, check=True)
    said = _lines(home, dg.DagsterRunStatus.SUCCESS)
    assert any("resuming after epoch" in line for line in said)
    assert list(root.glob(".encoder.partial-*")) == []

    # one MLflow run holds the whole curve, each step once
    client = mlflow.MlflowClient(f"sqlite:///{home / 'workspace' / 'mlflow' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (logged,) = client.search_runs(experiments, "tags.room = 'pretraining'")
    assert logged.info.status == "FINISHED"
    assert {
        "code_version",
        "data.pack",
        "environment.python",
        "environment.torch",
        "environment.packages",
    } <= logged.data.tags.keys()
    steps = sorted(point.step for point in client.get_metric_history(logged.info.run_id, "loss"))
    assert steps == list(range(1, 3 * int(EPOCHS) + 1))
    assert stopped_at < steps[-1]

    _run(monkeypatch, whole, "pretrain")
    weights = [(place / "workspace" / "tiny" / "encoder" / "encoder.safetensors").read_bytes() for place in (home, whole)]
    assert weights[0] == weights[1]
