"""`caco up` for real: both UIs on loopback, what dies is started again, a second one is refused, one Ctrl-C stops everything."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.services.local_stack import free_port
from caco_assets.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_replaced_by_a_free_one(occupied: int) -> None:
    assert free_port(occupied) not in (0, occupied)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "workspace" / "tiny" / "report").mkdir(parents=True)
    (tmp_path / "workspace" / "tiny" / "report" / "report.html").write_text("the report")
    return tmp_path


@contextmanager
def started(home: Path, location: Path | None = None, **ports: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`caco up` and what it has said until it was ready; killed with all its processes at the end."""
    # a test run that a script put in the background ignores Ctrl-C, and so would its children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    stack = subprocess.Popen(_up(location, **ports), env=_environment(home), stderr=subprocess.PIPE, text=True, cwd=home)
    signal.signal(signal.SIGINT, before)
    note = home / "workspace" / "logs" / "up.json"
    left: list[int] = []
    try:
        said = _until(stack, "Ctrl-C")
        left = list(json.loads(note.read_text())["processes"].values())
        yield stack, said
    finally:
        stack.terminate()
        stack.wait(120)
        for group in left:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        assert stack.stderr is not None
        stack.stderr.close()


@pytest.mark.systems
def test_the_local_stack_serves_dagster_mlflow_and_pages_until_ctrl_c(home: Path, occupied: int) -> None:
    with started(home, dagster=occupied, mlflow=free_port(0), pages=free_port(0)) as (stack, said):
        assert f"port {occupied} is in use" in said
        urls = dict(re.findall(r"^(Dagster|MLflow|Report)\s+(\S+)", said, flags=re.MULTILINE))
        assert b"dagster" in _get(urls["Dagster"] + "/server_info")
        assert _get(urls["MLflow"] + "/health") == b"OK"
        assert _get(urls["Report"]) == b"the report"

        # a second one on the same workspace is told where the first one runs
        second = subprocess.run(_up(), env=_environment(home), cwd=home, capture_output=True, text=True, check=False, timeout=120)
        assert second.returncode == 2
        assert f"already runs here: dagster {urls['Dagster']}, mlflow {urls['MLflow']}" in second.stderr
        assert f"kill {stack.pid}" in second.stderr

        stack.send_signal(signal.SIGINT)
        assert stack.wait(120) == 0
        for url in urls.values():
            with pytest.raises(OSError, match=r"refused"):
                _get(url)


LOCATION = """
import os, time
from pathlib import Path
import dagster as dg
from caco_assets.resources.profile import Profile

HOME = Path(os.environ["CACO_HOME"])

@dg.asset
def encoder(profile: Profile) -> None:
    (HOME / "training").touch()
    while not (HOME / "finish").exists():
        time.sleep(0.2)

defs = dg.Definitions(
    assets=[encoder],
    jobs=[dg.define_asset_job("chain", [encoder])],
    resources={"profile": Profile(name="tiny", home=str(HOME))},
    executor=dg.in_process_executor,
)
"""


@pytest.mark.systems
def test_a_training_goes_on_while_mlflow_and_then_the_daemon_die_and_start_again(settings: Settings) -> None:
    home = settings.home
    (home / "location.py").write_text(LOCATION)
    with started(home, location=home / "location.py", mlflow=(port := free_port(0))) as (stack, _said):
        environment = {**_environment(home), "DAGSTER_HOME": str(dagster_home(settings))}
        launch = [str(Path(sys.executable).with_name("dagster")), "job", "launch", "-f", str(home / "location.py"), "-j", "chain"]
        subprocess.run(launch, env=environment, cwd=home, check=True, capture_output=True)
        _wait((home / "training").exists)
        before = _processes(home)
        os.kill(before["mlflow"], signal.SIGKILL)
        said = _until(stack, "mlflow: started again")
        assert "mlflow: was ended by SIGKILL; it is started again in 1 s, the others run on" in said
        _wait(lambda: _answers(f"http://127.0.0.1:{port}/health"))
        os.kill(before["dagster-daemon"], signal.SIGKILL)
        _until(stack, "dagster-daemon: started again")
        # longer than the code server of the dead daemon waits for it
        time.sleep(45)
        (home / "finish").touch()
        with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
            _wait(lambda: instance.get_runs()[0].is_finished)
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
        after = _processes(home)
        assert after["dagster"] == before["dagster"]
        assert after["dagster-daemon"] != before["dagster-daemon"]


@pytest.mark.systems
def test_what_a_killed_stack_leaves_behind_keeps_a_second_one_out_and_is_named(home: Path) -> None:
    with started(home) as (stack, _said):
        stack.kill()
        stack.wait()
        second = subprocess.run(_up(), env=_environment(home), cwd=home, capture_output=True, text=True, check=False, timeout=120)
        assert "`caco up` was killed and its processes still run" in second.stderr
        for pid in _processes(home).values():
            assert str(pid) in second.stderr.partition("kill ")[2]


def _up(location: Path | None = None, **ports: int) -> list[str]:
    chosen = {**{name: free_port(0) for name in ("dagster", "mlflow", "pages")}, **ports}
    options = [f"--{name}-port={port}" for name, port in chosen.items()]
    if location is None:
        return [sys.executable, "-m", "caco_assets.cli", "up", *options]
    # the same command with another code location
    program = (
        "import sys; from caco_assets.services import local_stack as s; theirs = s.commands; "
        f"file = {str(location)!r}; own = lambda name, line: [*line[:-2], '-f', file] if 'dagster' in name else line; "
        "s.commands = lambda *a: {name: own(name, line) for name, line in theirs(*a).items()}; "
        f"from caco_assets.cli import main; sys.argv[1:] = {['up', *options]!r}; main()"
    )
    return [sys.executable, "-c", program]


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CACO_HOME": str(home), "CACO_PROFILE": "tiny"}


def _processes(home: Path) -> dict[str, int]:
    return json.loads((home / "workspace" / "logs" / "up.json").read_text())["processes"]


def _wait(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return bool(_get(url))
    except OSError:
        return False


def _until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 400  # four servers import at once: seconds on a quiet machine, minutes on a busy one
    while word not in said and time.monotonic() < deadline:
        line = process.stderr.readline()
        assert line, f"ended early: {said}"
        said += line
    return said


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()
