"""DVC through its own library, in homes of the tests' own."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash, produce
from caco_assets.resources.dvc.commit import DataVersions, commit_stale, data_versions
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.repo import history
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


def test_of_an_imported_set_the_pack_is_committed(logged, tmp_path: Path) -> None:
    imported = load_settings("seco", home=tmp_path)
    paths = imported.paths
    for name, path in {
        "archive/shard=0000": paths.archive / "shard=0000",
        "quarantine": paths.quarantine,
        "pack": paths.pack,
    }.items():
        _write(path, name) if name == "quarantine" else _write(path / "file", name)
        produce(name, path, records=paths.records, recipe="1", inputs={}, make=lambda target, path=path: path.rename(target) and {})
    said = logged()
    commit_stale(imported)
    commit_stale(imported)
    assert data_versions(imported) == {"pack": content_hash(paths.pack)}
    assert said == ["pack: committing this version to DVC"]


@pytest.fixture
def unreachable(settings: Settings) -> Settings:
    """A remote that cannot be written to: a file stands where its folder should be."""
    _write(settings.home / "not-a-folder", "a file where the remote should be")
    return load_settings("tiny", home=settings.home, versions={"remote": "not-a-folder/remote"})


def test_a_push_that_fails_fails_the_commit_with_one_line(unreachable: Settings) -> None:
    _write(unreachable.paths.locations, "places")
    with pytest.raises(UserError, match="dvc commit locations@tiny: not pushed") as caught:
        DataVersions().commit(unreachable, "locations")
    assert "\n" not in str(caught.value)


def test_an_asset_whose_push_failed_is_tried_again(unreachable: Settings) -> None:
    tried: list[int] = []

    @dg.asset
    def places(context: dg.AssetExecutionContext, versions: DataVersions) -> None:
        tried.append(context.retry_number)
        _write(unreachable.paths.locations, "places")
        if context.retry_number == 1:
            (unreachable.home / "not-a-folder").unlink()  # the store is back
        versions.commit(unreachable, "locations")

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([places], instance=instance, resources={"versions": DataVersions(retry_s=0.01)})
    assert result.success
    assert tried == [0, 1]
    assert list((unreachable.home / "not-a-folder" / "remote").rglob("*"))


def test_an_asset_whose_push_fails_for_good_fails_with_the_reason(unreachable: Settings) -> None:
    @dg.asset
    def places(versions: DataVersions) -> None:
        _write(unreachable.paths.locations, "places")
        versions.commit(unreachable, "locations")

    with dg.DagsterInstance.ephemeral() as instance:
        versions = DataVersions(retries=1, retry_s=0.01)
        result = dg.materialize([places], instance=instance, resources={"versions": versions}, raise_on_error=False)
        failed = result.get_step_failure_events()[0].step_failure_data
    assert not result.success
    assert "not pushed" in failed.error.cause.message


def test_the_setting_names_the_remote_and_gives_it_back(settings: Settings, tmp_path: Path) -> None:
    def remotes() -> str:
        return subprocess.run([*DVC, "remote", "list"], cwd=settings.home, text=True, capture_output=True, check=True).stdout

    stored = {"remote": "s3://bucket/caco", "endpoint": "http://127.0.0.1:9"}
    ensure_home(load_settings("tiny", home=settings.home, versions=stored))
    local = settings.home / ".dvc" / "config.local"
    local.write_text(local.read_text() + "[cache]\n    type = copy\n")
    assert "setting s3://bucket/caco (default)" in " ".join(remotes().split())
    ensure_home(settings)
    assert "s3://" not in remotes()
    assert "type = copy" in local.read_text()
    with pytest.raises(UserError, match="endpoint"):
        load_settings("tiny", home=settings.home, versions={"endpoint": "http://127.0.0.1:9"})


def test_growth_hashes_and_pushes_new_shards_alone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo
    from dvc_data.hashfile import hash as hashing

    for upstream in (settings.paths.locations, settings.paths.scenes, settings.paths.quarantine):
        _write(upstream, upstream.name)
    shards = [settings.paths.archive / f"shard={number:04d}" for number in range(4)]
    for shard in shards[:3]:
        _write(shard / "chips.tar", shard.name)
        _write(shard / "chips.parquet", f"index of {shard.name}")
    DataVersions().commit(settings, "archive")

    hashed, pushed = [], []
    plain, push = hashing._hash_file, Repo.push
    monkeypatch.setattr(hashing, "_hash_file", lambda path, *rest, **named: hashed.append(path) or plain(path, *rest, **named))
    monkeypatch.setattr(Repo, "push", lambda self, *rest: pushed.append(push(self, *rest)))
    for name in ("chips.tar", "chips.parquet"):
        _write(shards[3] / name, f"{name} of the new shard")
    DataVersions().commit(settings, "archive")
    new = {str(shards[3] / name) for name in ("chips.tar", "chips.parquet")}
    assert {path for path in hashed if "/archive/" in path} == new
    assert pushed == [3]  # the two, and the new listing of the archive


def test_what_was_committed_is_remembered_under_its_names(settings: Settings) -> None:
    for text in ("first", "second", "second"):
        _write(settings.paths.locations, text)
        DataVersions().commit(settings, "locations")
    names = [(entry["profile"], entry["stage"], entry["path"]) for entry in history(settings)]
    assert names == [("tiny", "locations", "workspace/tiny/data/locations.parquet")] * 2


def test_a_profile_that_the_pipeline_does_not_list_is_named(settings: Settings) -> None:
    ensure_home(settings)
    with pytest.raises(UserError, match="profile=embedded: not among the `profiles`"):
        ensure_home(load_settings("embedded", home=settings.home))
