"""Shards as Dagster partitions: the archive is bit-identical whichever process makes them, in any order."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.on_record import collect, plan
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.stage import build_catalog

pytestmark = [pytest.mark.integration, pytest.mark.systems]

WORKER = """
import os, sys
import dagster as dg
from caco_assets.imagery.assets import archive
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.resources.profile import Profile
from caco_assets.sampling.assets import shard_key
from caco_assets.settings import load_settings

first, last = sys.argv[1:]
settings = load_settings("tiny")
os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
with dg.DagsterInstance.get() as instance:
    instance.add_dynamic_partitions("shards", [shard_key(shard) for shard in range(4)])
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    where = {"tags": tags} if first != last else {"partition_key": first}
    profile = Profile(name="tiny", home=str(settings.home))
    done = dg.materialize([archive], instance=instance, resources={"profile": profile}, **where)
    assert done.success
    made = instance.get_materialized_partitions(archive.key)
    print(*sorted(made))
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Settings:
    """Four shards of three places, their scenes chosen, nothing ingested yet."""
    home = tmp_path_factory.mktemp("planned")
    settings = load_settings("tiny", home=home, sampling={"places_per_shard": 3})
    assert sample(settings).facts["shards"] == 4
    build_catalog(settings)
    plan(settings)
    return settings


@pytest.fixture
def home_of(planned, tmp_path):
    """A copy of the planned home under another name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(planned.home, tmp_path / name, symlinks=True))

    return copy


def worker(home: Path, first: str, last: str) -> subprocess.Popen[str]:
    """A process that materializes a range of partitions on the home's own Dagster instance."""
    environment = {**os.environ, "CACO_HOME": str(home), "CACO_SAMPLING__PLACES_PER_SHARD": "3"}
    command = [sys.executable, "-c", WORKER, first, last]
    return subprocess.Popen(command, env=environment, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Partitions that the instance knows as made when the worker ends."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out.split()


def archive_of(home: Path) -> dict[str, str]:
    """File → sha256 of everything in the archive and its quarantine."""
    settings = load_settings("tiny", home=home, sampling={"places_per_shard": 3})
    assert verify_archive(settings.paths.archive) == []
    files = [path for path in settings.paths.archive.rglob("*") if path.is_file()]
    hashes = {path.relative_to(settings.paths.archive).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {**hashes, "quarantine": collect(settings).content_hash}


def test_many_workers_make_the_archive_that_one_makes(home_of):
    alone, together = home_of("alone"), home_of("together")
    assert finish(worker(alone, "0000", "0003")) == ["0000", "0001", "0002", "0003"]
    # one first, which also makes the instance; then two at once, one of them a range
    finish(worker(together, "0003", "0003"))
    pair = [worker(together, "0000", "0001"), worker(together, "0002", "0002")]
    made = [finish(process) for process in pair]
    assert max(made, key=len) == ["0000", "0001", "0002", "0003"]
    assert archive_of(together) == archive_of(alone)


def test_two_workers_at_the_same_partition_make_it_once_and_whole(home_of):
    alone, rivals = home_of("alone"), home_of("rivals")
    finish(worker(alone, "0000", "0003"))
    finish(worker(rivals, "0003", "0003"))
    for process in [worker(rivals, "0000", "0002"), worker(rivals, "0000", "0002")]:
        finish(process)
    assert archive_of(rivals) == archive_of(alone)
