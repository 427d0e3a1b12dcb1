"""A clone whose branches name data that nobody has any more: it can be looked at and cleaned, and what can be restored is kept."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from caco_assets.core.errors import UserError
from caco_assets.resources.dvc.gc import garbage
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.repo import UnavailableError
from caco_assets.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHIVE = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture
def clone(settings: Settings) -> Settings:
    """A home in git whose branch `old` names an archive that was never pushed."""
    home = settings.home
    git(home, "init", "-q", "-b", "main")
    (home / ".gitignore").write_text("/workspace/\n/.dvc/tmp/\n/.dvc/config.local\n")
    ensure_home(settings)
    (home / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  archive@tiny:\n    cmd: caco ingest --profile tiny\n    outs:\n"
        f"    - path: workspace/tiny/data/archive\n      hash: md5\n      md5: {ARCHIVE}\n      size: 1\n      nfiles: 3\n"
    )
    commit(home, "data")
    git(home, "branch", "old")
    (home / "dvc.lock").unlink()
    commit(home, "no lock")
    return settings


def git(home: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=home, check=True, capture_output=True)


def commit(home: Path, subject: str) -> None:
    git(home, "add", "-A")
    git(home, "commit", "-q", "-m", subject)


def test_data_that_nobody_has_is_said_and_does_not_stop_the_rest(clone: Settings, logged: Callable[[], list[str]]) -> None:
    lines = logged()
    with garbage(clone.home, (), {}, remote=False) as (cache,):
        assert cache.bytes == 0
    assert lines == [
        f"gc: {ARCHIVE} (workspace/tiny/data/archive of the branch or tag old) is in neither cache nor remote, "
        "so it cannot be restored"
    ]


def test_a_remote_that_does_not_answer_stops_it(clone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("dvc.data_cloud.DataCloud.get_remote_odb", away)
    with pytest.raises(UnavailableError, match="the remote cannot be asked: no route"), garbage(clone.home, (), {}, remote=False):
        pass


def test_a_lock_that_cannot_be_read_names_its_branch_and_advises_no_deletion(clone: Settings) -> None:
    git(clone.home, "checkout", "-q", "-b", "broken")
    (clone.home / "dvc.yaml").write_text("stages: [")
    commit(clone.home, "broken")
    git(clone.home, "checkout", "-q", "main")
    with (
        pytest.raises(UserError, match="the branch or tag broken cannot be read") as caught,
        garbage(clone.home, (), {}, remote=False),
    ):
        pass
    assert "repair those files there" in str(caught.value)


def test_this_repository_names_no_data_that_a_clone_cannot_have() -> None:
    listed = subprocess.run(["git", "ls-files", "dvc.lock", "*.dvc"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout: the files of an installed package are not under version control")
    assert listed.stdout == ""
