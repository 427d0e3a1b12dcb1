"""`make clean` in a folder with models and data: it shows what would go, and deletes it only with the word."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from caco_assets.core.file_lock import try_lock

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A folder with the Makefile and a workspace that holds models, data and a write-protected object."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts" / "clean.sh", tmp_path / "scripts")
    for name in ("mlflow/mlflow.db", "dvc/remote/files/ab", "dagster/history/runs.db", "my region/encoder/encoder.json"):
        file = tmp_path / "workspace" / name
        file.parent.mkdir(parents=True)
        file.write_text("kept")
    (tmp_path / "workspace" / "dvc" / "remote" / "files").chmod(0o555)
    yield tmp_path
    subprocess.run(["chmod", "-R", "u+w", tmp_path / "workspace"], check=False, capture_output=True)


def clean(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "clean", *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [(), ("CONFIRM=",), ("CONFIRM=no",), ("CONFIRM=YES",)])
def test_without_the_word_nothing_is_deleted_and_all_of_it_is_shown(checkout: Path, words: tuple[str, ...]) -> None:
    done = clean(checkout, *words)
    assert done.returncode != 0
    for told in ("registered models", "every version of the data", "runs, events", "profile my region", "make clean CONFIRM=yes"):
        assert told in done.stdout
    assert (checkout / "workspace" / "mlflow" / "mlflow.db").read_text() == "kept"
    assert (checkout / "workspace" / "my region" / "encoder" / "encoder.json").exists()


def test_with_the_word_the_workspace_goes(checkout: Path) -> None:
    assert clean(checkout, "CONFIRM=yes").returncode == 0
    assert not (checkout / "workspace").exists()
    again = clean(checkout)
    assert (again.returncode, "nothing to delete" in again.stdout) == (0, True)


def test_a_workspace_in_which_the_servers_run_is_left_alone(checkout: Path) -> None:
    lock = checkout / "workspace" / "logs" / "up.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        assert try_lock(held)
        done = clean(checkout, "CONFIRM=yes")
    assert done.returncode != 0
    assert "stop it first" in done.stdout
    assert (checkout / "workspace" / "mlflow" / "mlflow.db").exists()


def test_a_workspace_elsewhere_is_not_followed(checkout: Path) -> None:
    (checkout / "workspace").rename(checkout / "elsewhere")
    (checkout / "workspace").symlink_to(checkout / "elsewhere")
    assert clean(checkout, "CONFIRM=yes").returncode != 0
    assert (checkout / "elsewhere" / "mlflow" / "mlflow.db").exists()
