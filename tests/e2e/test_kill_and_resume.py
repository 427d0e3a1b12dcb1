"""`kill -9` in the middle of an ingest, then the same command: it goes on, and the archive is the same to the bit."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CACO = [sys.executable, "-m", "caco_assets.cli"]


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CACO_HOME": str(home),
        "CACO_PROFILE": "tiny",
        "CACO_SAMPLING__PLACES_PER_SHARD": "3",
    }


def _run(home: Path, *arguments: str) -> None:
    done = subprocess.run([*CACO, *arguments], env=_environment(home), cwd=home, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def _kill_when(home: Path, pattern: str, *arguments: str) -> None:
    """Start a command and kill it as soon as a file of that pattern exists below the workspace."""
    with subprocess.Popen([*CACO, *arguments], env=_environment(home), cwd=home, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((home / "workspace").rglob(pattern)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, f"{arguments} ended before {pattern} appeared"
        process.send_signal(signal.SIGKILL)


def _bytes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_killed_ingest_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for home in (killed, whole):
        home.mkdir()
        _run(home, "sample")
        _run(home, "plan")

    _kill_when(killed, "shard=0001", "ingest")
    archive = killed / "workspace" / "tiny" / "data" / "archive"
    first = (archive / "shard=0000" / "chips.tar").stat().st_mtime_ns
    _run(killed, "ingest")
    _run(whole, "ingest")
    assert (archive / "shard=0000" / "chips.tar").stat().st_mtime_ns == first  # what was finished is not made again
    assert _bytes(archive) == _bytes(whole / "workspace" / "tiny" / "data" / "archive")
