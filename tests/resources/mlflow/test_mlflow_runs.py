import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import requests
from mlflow.exceptions import MlflowException

from caco_assets.core.errors import UserError
from caco_assets.resources.mlflow.client import RequestRefusedError, ServerAwayError, open_tracking, redacted, server_arguments
from caco_assets.resources.mlflow.resource import TrackingResource, live_run
from caco_assets.resources.mlflow.runs import MlflowSink, code_version, flat_settings, open_run
from caco_assets.settings import Settings, StacApiSource, load_settings
from mlflow import MlflowClient

REPOSITORY = Path(__file__).resolve().parents[3]

# raised while MLflow's own database module is imported
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def test_a_run_carries_tags_parameters_data_and_files_in_the_workspace(
    mlflow_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    tracking = open_tracking(mlflow_settings)
    digest = "0123456789abcdef0123456789abcdef.dir"
    with open_run(tracking, "pretraining", mlflow_settings, data={"pack": digest}, dagster_run_id="d-1") as run:
        run.metrics({"loss": 1.5}, step=3)
        run.text("hello", "notes/hello.txt")

    read = tracking.client.get_run(run.run_id)
    tags = read.data.tags
    assert (tags["room"], tags["profile"], tags["vintage"]) == ("pretraining", "tiny", "2026-10")
    assert (tags["data.pack"], tags["dagster_run_id"], tags["code_version"]) == (digest, "d-1", code_version())
    assert read.data.params["pretraining.queue_size"] == "32"
    assert read.data.params["imagery.source.kind"] == "synthetic"
    assert read.data.metrics["loss"] == 1.5
    assert read.info.status == "FINISHED"
    ((dataset, _),) = [(each.dataset, each.tags) for each in read.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("pack", digest)
    artifacts = mlflow_settings.paths.workspace / "mlflow" / "artifacts"
    assert [path.read_text() for path in artifacts.rglob("hello.txt")] == ["hello"]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(("error", "status"), [(ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_ends_badly_says_how(mlflow_settings: Settings, error: BaseException, status: str) -> None:
    tracking = open_tracking(mlflow_settings)
    with pytest.raises(type(error)), open_run(tracking, "pretraining", mlflow_settings) as run:
        raise error
    assert tracking.client.get_run(run.run_id).info.status == status


def test_live_figures_arrive_in_batches_and_in_order(mlflow_settings: Settings) -> None:
    tracking = open_tracking(mlflow_settings)
    calls = []
    real = tracking.client.log_batch
    tracking.client.log_batch = lambda *args, **kwargs: (calls.append(kwargs), real(*args, **kwargs))[1]  # type: ignore[method-assign]
    with open_run(tracking, "pretraining", mlflow_settings) as run:
        calls.clear()
        with run.sink() as sink:
            for step in range(1, 801):
                sink.log(step, {"loss": 1 / step, "epoch": step // 10})
    assert 1 <= len(calls) <= 3
    history = tracking.client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
        (step, 1 / step) for step in range(1, 801)
    ]


def refuse(*_: object, **__: object) -> None:
    raise MlflowException("connection refused")


def test_the_client_translates_the_errors_of_mlflow(mlflow_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = open_tracking(mlflow_settings)
    with pytest.raises(RequestRefusedError, match=r"^tracking server sqlite:.*check registry.tracking_uri") as refused:
        tracking.client.get_run("f" * 32)
    assert refused.value.code == "RESOURCE_DOES_NOT_EXIST"
    assert isinstance(refused.value.__cause__, MlflowException)
    with pytest.raises(RequestRefusedError):
        tracking.download(f"runs:/{'f' * 32}/scores", mlflow_settings.home)

    def away(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(MlflowClient, "get_run", away)
    with pytest.raises(ServerAwayError, match="start it and run the same again"):
        tracking.client.get_run("f" * 32)


def test_a_server_that_is_away_delays_figures_and_loses_none(
    logged, mlflow_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = open_tracking(mlflow_settings)
    with open_run(tracking, "pretraining", mlflow_settings) as run:
        said = logged()
        sink = MlflowSink(run)
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, "log_batch", refuse)
            sink.log(1, {"loss": 2.0})
            sink.flush()
            sink.log(2, {"loss": 1.0})
            sink.flush()
        sink.close()
    assert len(said) == 1
    assert "kept and sent later" in said[0]
    assert {point.step for point in tracking.client.get_metric_history(run.run_id, "loss")} == {1, 2}


def test_figures_that_never_arrive_are_said(logged, mlflow_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = open_tracking(mlflow_settings)
    with open_run(tracking, "pretraining", mlflow_settings) as run:
        said = logged()
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, "log_batch", refuse)
            with run.sink() as sink:
                sink.log(1, {"loss": 2.0, "epoch": 0})
    assert "2 metrics" in said[-1]
    assert "metrics.jsonl" in said[-1]


def test_credentials_enter_no_tag_parameter_or_message(tmp_path: Path) -> None:
    plain = load_settings("tiny", home=tmp_path, registry={"tracking_uri": "http://me:hunter2@127.0.0.1:9"})
    source = StacApiSource(url="https://user:hunter2@stac.example/v1?key=hunter2")
    settings = plain.model_copy(update={"imagery": plain.imagery.model_copy(update={"source": source})})
    flat = flat_settings(settings)
    assert "hunter2" not in json.dumps(flat)
    assert flat["imagery.source.url"] == "https://stac.example/v1"
    assert redacted("plain text: a? b@c") == "plain text: a? b@c"
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9: no answer") as caught:
        open_tracking(settings)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_down_is_an_error_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = load_settings("tiny", home=tmp_path, registry={"tracking_uri": f"http://127.0.0.1:{port}"})
    start = time.monotonic()
    with pytest.raises(UserError, match="start the server, or remove the setting"):
        open_tracking(settings)
    assert time.monotonic() - start < 8


def test_a_database_that_is_none_is_the_users_error(settings: Settings) -> None:
    database = settings.paths.workspace / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db"):
        open_tracking(settings)


def test_the_server_shows_what_the_runs_of_this_workspace_write(settings: Settings) -> None:
    arguments = server_arguments(settings)
    assert f"sqlite:///{settings.paths.workspace}/mlflow/mlflow.db" in arguments
    assert str(settings.paths.workspace / "mlflow" / "artifacts") in arguments


def test_import_mlflow_in_the_repository_is_the_installed_package() -> None:
    # what `import mlflow` would load, without the seconds of loading it
    code = "from importlib.util import find_spec; print(find_spec('mlflow').origin)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
        capture_output=True,
        check=True,
    )
    assert "site-packages" in done.stdout
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()


def test_a_training_that_goes_on_continues_its_run_and_repeats_no_figure(mlflow_settings: Settings, tmp_path: Path) -> None:
    tracking, remembered = open_tracking(mlflow_settings), tmp_path / "run.json"
    ids = []

    def interrupted() -> None:
        with open_run(tracking, "pretraining", mlflow_settings, resume_file=remembered) as run:
            ids.append(run.run_id)
            run.metrics({"loss": 3.0}, step=1)
            run.metrics({"loss": 2.0, "epoch_loss": 2.5}, step=2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_run(tracking, "pretraining", mlflow_settings, resume_file=remembered, dagster_run_id="d-2") as run:
        ids.append(run.run_id)
        with run.sink() as sink:
            for step, values in ((1, {"loss": 3.0}), (2, {"loss": 2.0}), (2, {"epoch_loss": 2.5}), (3, {"loss": 1.0})):
                sink.log(step, values)
    assert ids[0] == ids[1]
    assert not remembered.exists()
    read = tracking.client.get_run(ids[0])
    assert (read.info.status, read.data.tags["dagster_run_id"]) == ("FINISHED", "d-2")
    steps = {name: [point.step for point in tracking.client.get_metric_history(ids[0], name)] for name in ("loss", "epoch_loss")}
    assert steps == {"loss": [1, 2, 3], "epoch_loss": [2]}
    # the file is named after the work: other work is another run
    with open_run(tracking, "pretraining", mlflow_settings, resume_file=tmp_path / "other.json") as run:
        assert run.run_id != ids[0]


def test_a_run_whose_process_was_killed_does_not_run_for_ever(mlflow_settings: Settings, tmp_path: Path) -> None:
    server, remembered = open_tracking(mlflow_settings), tmp_path / "run.json"

    @dg.op
    def nothing() -> None:
        pass

    @dg.op
    def opens(tracking: TrackingResource) -> None:
        tracking.open(mlflow_settings)

    with dg.DagsterInstance.ephemeral() as instance:
        (dead, alive) = (instance.create_run_for_job(dg.GraphDefinition("g", node_defs=[nothing]).to_job()) for _ in range(2))
        instance.report_run_failed(dead)
        tags = {"killed": dead.run_id, "at work": alive.run_id, "another instance's": "c0ffee", "by command": None}
        opened = {}
        for name, run_id in tags.items():
            # a process that is killed leaves the block in no way
            block = open_run(server, "pretraining", mlflow_settings, dagster_run_id=run_id, resume_file=remembered)
            remembered.unlink(missing_ok=True)
            opened[name] = (block, block.__enter__().run_id)
        job = dg.GraphDefinition("h", node_defs=[opens]).to_job(resource_defs={"tracking": TrackingResource()})
        assert job.execute_in_process(instance=instance).success
    status = {name: server.client.get_run(run_id).info.status for name, (_, run_id) in opened.items()}
    assert status == {"killed": "KILLED", "at work": "RUNNING", "another instance's": "RUNNING", "by command": "RUNNING"}
    # and it is gone on with all the same
    remembered.write_text(opened["killed"][1])
    with open_run(server, "pretraining", mlflow_settings, resume_file=remembered) as run:
        assert run.run_id == opened["killed"][1]
    assert server.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_says_in_which_environment_it_was_made(mlflow_settings: Settings) -> None:
    import platform
    from importlib.metadata import version

    tracking = open_tracking(mlflow_settings)
    with open_run(tracking, "pretraining", mlflow_settings) as run:
        pass
    tags = tracking.client.get_run(run.run_id).data.tags
    assert tags["environment.python"] == platform.python_version()
    assert tags["environment.torch"] == version("torch")
    assert len(tags["environment.packages"]) == len(tags["environment.lock"]) == 64


def test_a_run_that_two_threads_begin_is_one(mlflow_settings: Settings) -> None:
    with live_run(mlflow_settings, "pretraining", {}, "d-1") as live, ThreadPoolExecutor(4) as pool:
        runs = {begun.result().run_id for begun in [pool.submit(live.begin) for _ in range(4)]}
    assert len(runs) == 1
    found = open_tracking(mlflow_settings).client.search_runs([open_tracking(mlflow_settings).experiment_id])
    assert {run.info.run_id for run in found} == runs
