"""The entry point of training: configured by one file, stopped by signals, its metrics followed by the process that started it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.launch.metrics_tail import tail_metrics
from caco_assets.pretraining.launch.separate_process import pretrain_in_subprocess
from caco_assets.pretraining.train import main
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import read_outcome, training_lock
from caco_assets.pretraining.training.stop_request import Stopped, StopRequest, stop_requests, stop_with
from caco_assets.settings import Pretraining

# 12 places, 24 samples: 3 steps per epoch
OPTIONS = Pretraining(backbone="test_resnet", image_size=32, batch_size=8, queue_size=32, epochs=2, threads=1, device="cpu")


class Memory(list):
    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.append({"step": step, **values})


@pytest.fixture
def config(tmp_path: Path, make_pack: Callable[..., Path]) -> RunConfig:
    pack = make_pack(tmp_path / "pack")
    return RunConfig(pack=pack, target=tmp_path / "out", pretraining=OPTIONS, data={"pack": content_hash(pack)})


def written(config: RunConfig, name: str = "config.json") -> Path:
    path = config.target.with_name(name)
    path.write_text(config.model_dump_json())
    return path


def in_this_process(arguments: list[str]) -> int:
    """Stands for a process: what follows `python -m caco_assets.pretraining.train`."""
    assert arguments[1:3] == ["-m", "caco_assets.pretraining.train"]
    return main(arguments[3:])


def identity(config: RunConfig) -> str:
    return Encoder.load(config.target).identity


def without_times(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.systems
def test_training_needs_neither_dagster_nor_mlflow_nor_the_geographic_libraries(config: RunConfig, tmp_path: Path) -> None:
    code = """
        import runpy, sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("dagster", "dagster_pipes", "mlflow", "dvc", "rasterio", "geopandas"):
                    raise ModuleNotFoundError(f"{name} is not installed here")

        sys.meta_path.insert(0, Absent())
        sys.argv = ["train", sys.argv[1]]
        runpy.run_module("caco_assets.pretraining.train", run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(written(config))],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = read_metrics(config.target / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert json.loads((config.target / "encoder.json").read_text())["data"] == config.data
    # the same config in another process gives the same weights
    again = config.model_copy(update={"target": tmp_path / "again"})
    assert main([str(written(again, "again.json"))]) == 0
    assert identity(again) == identity(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no.json: there is no such file"),
        ("{", "not readable as YAML"),
        ("[1]", "a mapping with pack, target, "),
        ('{"target": "out"}', "pack is missing; keys: pack, target, seed"),
        ('{"pack": "p", "target": "out", "sed": 3}', "sed=3: unknown key; allowed: pack, target, seed"),
        (
            '{"pack": "p", "target": "out", "pretraining": {"batchsize": 3}}',
            "pretraining.batchsize=3: unknown key; allowed: objective",
        ),
        ('{"pack": "p", "target": "out", "pretraining": {"batch_size": 1}}', "pretraining.batch_size=1: "),
        ("pack: absent\ntarget: out\n", "absent"),
    ],
)
def test_a_config_that_cannot_work_is_said_in_one_line(tmp_path, monkeypatch, capfd, text, message) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "no.json").write_text(text)
    assert main(["no.json"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert message in said[-1]
    assert said[-1].startswith("pretrain: ")


def test_without_a_config_the_usage_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "CONFIG" in capfd.readouterr().err


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_training_with_a_checkpoint_from_which_the_same_command_goes_on(
    config, tmp_path, capfd, signum, status
) -> None:
    long = config.model_copy(update={"pretraining": OPTIONS.model_copy(update={"epochs": 12})})
    whole = long.model_copy(update={"target": tmp_path / "whole"})
    assert main([str(written(whole, "whole.json"))]) == 0

    def ask() -> None:
        while not (long.target / "metrics.jsonl").exists() or len(read_metrics(long.target / "metrics.jsonl")) < 3:
            time.sleep(0.005)
        os.kill(os.getpid(), signum)

    asking = threading.Thread(target=ask)
    asking.start()
    before = signal.getsignal(signum)
    assert main([str(written(long))]) == status
    asking.join()
    assert signal.getsignal(signum) is before
    assert read_outcome(long.target) == {"status": "stopped", "signum": signum}
    assert "with a checkpoint; the same command resumes from it" in capfd.readouterr().err
    assert main([str(written(long))]) == 0
    assert "resuming after epoch" in capfd.readouterr().err
    assert without_times(long.target) == without_times(whole.target)
    assert identity(long) == identity(whole)


def test_what_is_finished_is_not_trained_again_and_what_is_told_otherwise_is(config: RunConfig, capfd) -> None:
    assert main([str(written(config))]) == 0
    before = (config.target / "metrics.jsonl").stat().st_mtime_ns
    assert main([str(written(config))]) == 0
    assert (config.target / "metrics.jsonl").stat().st_mtime_ns == before
    assert main([str(written(config.model_copy(update={"seed": 1})))]) == 0
    assert (config.target / "metrics.jsonl").stat().st_mtime_ns != before


def test_a_process_of_its_own_hands_back_facts_and_figures(config: RunConfig) -> None:
    memory = Memory()
    facts = pretrain_in_subprocess(config, [memory], in_this_process)
    assert facts["steps"] == 6
    assert memory == read_metrics(config.target / "metrics.jsonl")
    # asked again, it has nothing to do, and still hands everything on
    again = Memory()
    assert pretrain_in_subprocess(config, [again], in_this_process) == facts
    assert again == memory


def test_what_the_process_says_is_wrong_is_raised_here(config: RunConfig) -> None:
    wrong = config.model_copy(update={"pretraining": OPTIONS.model_copy(update={"batch_size": 64, "queue_size": 64})})
    with pytest.raises(UserError, match=r"batch_size=64: the pack .* holds only 24 samples"):
        pretrain_in_subprocess(wrong, (), in_this_process)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            UserError,
            r"batch_size=8: the training process was killed, .*resumes from the last",
        ),
        ("raise SystemExit(7)", RuntimeError, "ended with status 7"),
    ],
)
def test_a_process_that_dies_without_a_word_is_an_error(config: RunConfig, code: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        pretrain_in_subprocess(config, (), lambda _: subprocess.run([sys.executable, "-c", code], check=False).returncode)


def test_a_stop_of_the_process_is_a_stop_here(config: RunConfig) -> None:
    def start(arguments: list[str]) -> int:
        config.target.with_name("out.outcome.json").write_text('{"status": "stopped", "signum": 15}')
        return 143

    with pytest.raises(Stopped) as stopped:
        pretrain_in_subprocess(config, (), start)
    assert stopped.value.status == 143


@pytest.mark.systems
def test_the_stage_trains_in_a_child_that_is_stopped_by_a_signal_to_its_parent(config: RunConfig, tmp_path: Path) -> None:
    long = config.model_copy(update={"pretraining": OPTIONS.model_copy(update={"epochs": 400, "launcher": "process"})})
    code = f"""
        from pathlib import Path
        from caco_assets.pretraining.launch.separate_process import pretrain_in_subprocess
        from caco_assets.pretraining.training.run_config import read_config
        pretrain_in_subprocess(read_config(Path({str(written(long))!r})))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True) as parent:
        deadline = time.monotonic() + 120
        while not (long.target / "metrics.jsonl").exists() or not read_metrics(long.target / "metrics.jsonl"):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(signal.SIGTERM)
        parent.wait(60)
        assert "Stopped" in (parent.stderr.read() if parent.stderr else "")
    assert (long.target / "checkpoint.pt").exists()


def test_training_stops_when_the_process_that_started_it_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    request = StopRequest()
    import platform

    stop_with((platform.node(), gone.pid), request)
    deadline = time.monotonic() + 60
    while request.signum is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert request.signum is not None
    elsewhere = StopRequest()
    stop_with(("another-machine", gone.pid), elsewhere)
    time.sleep(0.05)
    assert elsewhere.signum is None


def test_two_signals_ask_and_the_third_interrupts() -> None:
    with stop_requests() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum is not None
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_two_trainings_never_write_into_one_folder(logged, tmp_path: Path) -> None:
    said = logged()
    with (
        training_lock(tmp_path / "out"),
        pytest.raises(UserError, match="out: another process holds the lock; wait for it or stop it"),
        training_lock(tmp_path / "out", wait_s=0.05),
    ):
        pass
    with training_lock(tmp_path / "out"):
        pass
    assert len(said) == 1


def test_lines_are_followed_once_and_in_order_even_where_a_resumed_training_repeats_them(tmp_path: Path) -> None:
    path, memory = tmp_path / "metrics.jsonl", Memory()

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 60
        while len(memory) < count and time.monotonic() < deadline:
            time.sleep(0.005)

    def line(step: int, **values: float) -> str:
        return json.dumps({"step": step, **values}) + "\n"

    with tail_metrics(path, [memory], poll_s=0.01):
        path.write_text(line(1, loss=1.0) + line(2, loss=2.0) + '{"step": 3, "lo')
        wait_for(2)
        path.unlink()  # a resumed training replaces the file
        path.write_text(line(1, loss=1.0) + line(2, loss=2.0) + line(2, epoch_loss=1.5) + line(3, loss=3.0))
    assert [(entry["step"], entry.get("loss")) for entry in memory] == [(1, 1.0), (2, 2.0), (2, None), (3, 3.0)]


def test_what_a_follower_cannot_take_is_raised_after_training(tmp_path: Path) -> None:
    class Broken:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            raise UserError("no server")

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n')
    finished = False
    with pytest.raises(UserError, match="no server"), tail_metrics(path, [Broken()], poll_s=0.01):
        finished = True
    assert finished
