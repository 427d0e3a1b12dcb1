"""Data versions in an S3 store on loopback, and what branches and tags of git keep from being deleted."""

import shutil
import subprocess
import sys

import pytest

from caco_assets.core.errors import UserError
from caco_assets.resources.dvc.commit import DataVersions
from caco_assets.resources.dvc.gc import garbage
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.settings import Settings, load_settings

DVC = [sys.executable, "-m", "dvc"]


def quiet(_: str) -> None:
    return


def _commit(settings: Settings, text: str) -> str:
    """A version of the places with this content; its md5."""
    settings.paths.locations.parent.mkdir(parents=True, exist_ok=True)
    settings.paths.locations.unlink(missing_ok=True)
    settings.paths.locations.write_text(text)
    (md5,) = DataVersions().commit(settings, "locations").values()
    return md5


@pytest.fixture
def bucket(s3_api: str) -> str:
    """Address of an S3 API on loopback with the bucket `caco`."""
    import boto3

    boto3.client("s3", endpoint_url=s3_api).create_bucket(Bucket="caco")
    return s3_api


@pytest.mark.integration
def test_versions_go_to_an_s3_store_and_come_back_with_dvc_alone(settings: Settings, bucket: str) -> None:
    stored = load_settings("tiny", home=settings.home, versions={"remote": "s3://caco/data", "endpoint": bucket})
    first, second = _commit(stored, "first"), _commit(stored, "second")
    shutil.rmtree(stored.paths.workspace / "dvc" / "cache")
    stored.paths.locations.unlink()
    subprocess.run([*DVC, "pull", "-q", "locations@tiny"], cwd=stored.home, check=True)
    assert stored.paths.locations.read_text() == "second"

    with garbage(stored.home, (), {first: "locations of tiny"}, remote=True) as stores:
        assert [(store.kind, sorted(store.waste)) for store in stores] == [("cache", []), ("remote", [first])]
        assert stores[1].by_product() == {"locations of tiny": (1, len("first"))}
        for store in stores:
            store.delete()
    with garbage(stored.home, (), {}, remote=True) as stores:
        assert [(store.kept, store.bytes) for store in stores] == [(1, 0), (1, 0)]
    assert second


@pytest.mark.integration
def test_a_store_that_does_not_answer_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    away = load_settings("tiny", home=settings.home, versions={"remote": "s3://caco/data", "endpoint": "http://127.0.0.1:9"})
    with pytest.raises(UserError, match="not pushed") as caught:
        _commit(away, "first")
    assert "\n" not in str(caught.value)


def test_what_a_branch_or_a_tag_names_is_no_garbage(settings: Settings) -> None:
    home = settings.home

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=home, check=True, capture_output=True)

    git("init", "-q")
    (home / ".gitignore").write_text("/workspace/\n/.dvc/tmp/\n")
    ensure_home(settings)
    kept = []
    for text, keep in (("on a branch", "branch"), ("under a tag", "tag"), ("rejected", None), ("now", None)):
        md5 = _commit(settings, text)
        if keep:
            git("add", "-A")
            git("commit", "-q", "-m", text)
            git(keep, f"old-{keep}")
            kept.append(md5)
    with garbage(home, (), {}, remote=False) as (cache,):
        assert (len(cache.waste), cache.kept) == (1, 3)
        assert not set(kept) & cache.waste.keys()
    with garbage(home, cache.waste, {}, remote=False) as (cache,):
        assert cache.bytes == 0


def test_a_cache_that_may_serve_others_is_left_alone(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    ensure_home(settings)
    config = settings.home / ".dvc" / "config"
    config.write_text(config.read_text().replace("../workspace/dvc/cache", str(tmp_path_factory.mktemp("shared"))))
    _commit(settings, "first")
    with pytest.raises(UserError, match="may serve other homes"), garbage(settings.home, (), {}, remote=False):
        pass
