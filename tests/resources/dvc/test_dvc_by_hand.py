"""DVC as its users know it, at a prompt in a home under git: repro, status, diff, push, checkout and pull of the tiny profile."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caco_assets.resources.dvc.home import ensure_home
from caco_assets.settings import Settings

pytestmark = pytest.mark.systems


@pytest.fixture
def at(settings: Settings) -> Callable[..., str]:
    """Types a command in the home, which is a repository of git, and gives what it prints."""
    home = settings.home
    author = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **author, "CACO_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def typed(*words: str, **told: str) -> str:
        done = subprocess.run(words, cwd=home, env={**environment, **told}, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    typed("git", "init", "-q")
    ensure_home(settings)
    (home / ".gitignore").write_text("workspace/\n")
    return typed


def test_stages_are_made_again_compared_and_brought_back(settings: Settings, at: Callable[..., str]) -> None:
    places, cache = settings.paths.locations, settings.paths.workspace / "dvc" / "cache"

    def kept(message: str) -> bytes:
        at("dvc", "push", "-q", "locations@tiny")
        at("git", "add", "-A")
        at("git", "commit", "-qm", message)
        return places.read_bytes()

    at("dvc", "repro", "-q", "locations@tiny")
    first = kept("first")
    assert "locations@tiny" not in json.loads(at("dvc", "status", "--json", "locations@tiny"))

    at("dvc", "repro", "-q", "locations@tiny", CACO_SEED="7")
    changed = json.loads(at("dvc", "diff", "--json", "HEAD"))
    assert [entry["path"] for entry in changed["modified"]] == [places.relative_to(settings.home).as_posix()]
    assert kept("second") != first

    at("git", "checkout", "-q", "HEAD~1", "--", "dvc.lock")
    at("dvc", "checkout", "-q", "locations@tiny")
    assert places.read_bytes() == first
    shutil.rmtree(cache)
    places.unlink()
    at("dvc", "pull", "-q", "locations@tiny")
    assert places.read_bytes() == first
