"""DVC through its own library, in homes of the tests' own."""

import subprocess
import sys
from pathlib import Path

import pytest

from caco_assets.errors import UserError
from caco_assets.home import ensure_home
from caco_assets.products import content_hash
from caco_assets.resources.dvc import DataVersions, data_versions
from caco_assets.settings import Settings, load_settings

DVC = [sys.executable, "-m", "dvc"]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)


def test_a_commit_names_the_same_hash_as_the_product(settings: Settings) -> None:
    _write(settings.paths.locations, "places")
    versions = DataVersions().commit(settings, "locations")
    assert list(versions.values()) == [content_hash(settings.paths.locations)]
    assert data_versions(settings) == {"locations": content_hash(settings.paths.locations)}


def test_an_old_version_comes_back_with_dvc_checkout(settings: Settings) -> None:
    _write(settings.paths.locations, "first")
    DataVersions().commit(settings, "locations")
    lock = (settings.home / "dvc.lock").read_text()
    _write(settings.paths.locations, "second")
    DataVersions().commit(settings, "locations")

    (settings.home / "dvc.lock").write_text(lock)
    subprocess.run([*DVC, "checkout", "-q", "locations@tiny"], cwd=settings.home, check=True)
    assert settings.paths.locations.read_text() == "first"


def test_a_pushed_version_survives_the_loss_of_cache_and_workspace(settings: Settings) -> None:
    _write(settings.paths.archive / "shard=0000" / "chips.tar", "chips")
    _write(settings.paths.quarantine, "none")
    for upstream in (settings.paths.locations, settings.paths.scenes):
        _write(upstream, "upstream")
    DataVersions().commit(settings, "archive")
    cache = settings.paths.workspace / "dvc" / "cache"
    subprocess.run(["rm", "-rf", cache, settings.paths.archive], check=True)

    subprocess.run([*DVC, "pull", "-q", "archive@tiny"], cwd=settings.home, check=True)
    assert (settings.paths.archive / "shard=0000" / "chips.tar").read_text() == "chips"


def test_a_push_that_fails_fails_the_commit_with_one_line(settings: Settings) -> None:
    _write(settings.paths.locations, "places")
    ensure_home(settings)
    config = settings.home / ".dvc" / "config"
    _write(settings.home / "not-a-folder", "a file where the remote should be")
    config.write_text(config.read_text().replace("../workspace/dvc/remote", "../not-a-folder/remote"))
    with pytest.raises(UserError, match="dvc commit locations@tiny") as caught:
        DataVersions().commit(settings, "locations")
    assert "\n" not in str(caught.value)


def test_a_profile_that_the_pipeline_does_not_list_is_named(settings: Settings) -> None:
    ensure_home(settings)
    with pytest.raises(UserError, match="profile=embedded: not among the `profiles`"):
        ensure_home(load_settings("embedded", home=settings.home))
