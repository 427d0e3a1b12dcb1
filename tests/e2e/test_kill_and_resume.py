"""`kill -9` in the middle of an ingest and of pretraining, then the same command: it resumes, and ends with the same bytes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caco_assets.cli import main

pytestmark = [pytest.mark.e2e, pytest.mark.systems]

CACO = [sys.executable, "-m", "caco_assets.cli"]


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CACO_HOME": str(home),
        "CACO_PROFILE": "tiny",
        "CACO_PRETRAINING__EPOCHS": "8",
    }


def _run(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> None:
    """The same command in this process, which has paid for the imports already."""
    for name, value in _environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0


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


def test_a_killed_ingest_resumes_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for home in (killed, whole):
        home.mkdir()
        _run(monkeypatch, home, "sample")
        _run(monkeypatch, home, "plan")

    _kill_when(killed, "shard=0001", "ingest")
    archive = killed / "workspace" / "tiny" / "data" / "archive"
    first = (archive / "shard=0000" / "chips.tar").stat().st_mtime_ns
    _run(monkeypatch, killed, "ingest")
    _run(monkeypatch, whole, "ingest")
    assert (archive / "shard=0000" / "chips.tar").stat().st_mtime_ns == first  # what was finished is not made again
    assert _bytes(archive) == _bytes(whole / "workspace" / "tiny" / "data" / "archive")


def test_a_killed_pretraining_resumes_and_ends_with_the_same_weights(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for home in (killed, whole):
        shutil.copytree(tiny_home, home, symlinks=True)

    _kill_when(killed, "checkpoint.pt", "pretrain")
    encoder = Path("workspace", "tiny", "encoder")
    assert not (killed / encoder).exists()  # a part of an encoder is never seen under its name
    _run(monkeypatch, killed, "pretrain")
    _run(monkeypatch, whole, "pretrain")
    name = "encoder.safetensors"
    assert (killed / encoder / name).read_bytes() == (whole / encoder / name).read_bytes()
    losses = [
        [(row["step"], row.get("loss")) for row in map(json.loads, (home / encoder / "metrics.jsonl").read_text().splitlines())]
        for home in (killed, whole)
    ]
    assert losses[0] == losses[1]  # the curve has every step once
