"""An interrupted shard resumes where it stopped, and concurrent processes do not interfere."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caco_assets.core.file_lock import file_lock
from caco_assets.imagery.ingest import fill_shard
from caco_assets.imagery.on_record import ingest_shard, plan


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class InterruptedWorkError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def twin(six_dates, tiny_earth, over):
    """Settings with some cloudy candidates, its whole shard 0 made, and a function that makes fresh settings."""
    tiny_earth.scene("2022-04-25", cloud=0.0, scl=9)
    catalog = tiny_earth.write()
    whole = over(catalog, home="whole")
    plan(whole)
    ingest_shard(whole, 0)

    def fresh(home: str):
        settings = over(catalog, home=home)
        plan(settings)
        return settings

    return whole, fresh


@pytest.mark.parametrize("moment", [1, 2, 9, 17, 18])
def test_an_interrupted_shard_reads_no_chip_twice_and_ends_with_the_same_bytes(twin, monkeypatch, moment):
    whole, fresh = twin
    settings = fresh("torn")
    encoded, encode = [], fill_shard.encode

    def counted(*arguments):
        encoded.append(1)
        if len(encoded) == moment:
            raise InterruptedWorkError
        return encode(*arguments)

    monkeypatch.setattr(fill_shard, "encode", counted)
    with pytest.raises(InterruptedWorkError):
        ingest_shard(settings, 0)
    [left] = settings.paths.archive.iterdir()
    assert left.name.startswith(".shard=0000.partial-")
    ingest_shard(settings, 0)
    assert contents(settings.paths.archive / "shard=0000") == contents(whole.paths.archive / "shard=0000")
    assert [path.name for path in settings.paths.archive.iterdir()] == ["shard=0000"]
    # 18 chips in scenes of 3; read again are the one that failed, what the other worker was at, and one begun meanwhile
    assert 18 < len(encoded) <= 18 + 3 * (settings.imagery.workers + 1)


@pytest.mark.parametrize("step", ["write_tar", "write_index", "write_quarantine"])
def test_an_interruption_while_the_shard_is_written_costs_no_reading(twin, monkeypatch, step):
    whole, fresh = twin
    settings = fresh("torn")

    def broken(*_):
        raise InterruptedWorkError

    with monkeypatch.context() as patch:
        patch.setattr(fill_shard, step, broken)
        with pytest.raises(InterruptedWorkError):
            ingest_shard(settings, 0)
    monkeypatch.setattr(fill_shard, "read_chips", broken)
    ingest_shard(settings, 0)
    assert contents(settings.paths.archive / "shard=0000") == contents(whole.paths.archive / "shard=0000")


def test_an_interruption_while_the_shard_is_put_in_place_costs_no_reading(twin, monkeypatch):
    whole, fresh = twin
    settings = fresh("torn")

    def broken(*_):
        raise InterruptedWorkError

    with monkeypatch.context() as patch:
        patch.setattr("caco_assets.core.products._swap", broken)
        with pytest.raises(InterruptedWorkError):
            ingest_shard(settings, 0)
    monkeypatch.setattr(fill_shard, "read_chips", broken)
    ingest_shard(settings, 0)
    assert contents(settings.paths.archive / "shard=0000") == contents(whole.paths.archive / "shard=0000")


def test_other_settings_do_not_resume_from_an_old_journal(twin, monkeypatch):
    whole, fresh = twin
    settings = fresh("torn")

    def broken(*_):
        raise InterruptedWorkError

    with monkeypatch.context() as patch:
        patch.setattr(fill_shard, "write_tar", broken)
        with pytest.raises(InterruptedWorkError):
            ingest_shard(settings, 0)
    changed = settings.imagery.model_copy(update={"min_clear": 0.5})
    ingest_shard(settings.model_copy(update={"imagery": changed}), 0)
    assert contents(settings.paths.archive / "shard=0000").keys() == contents(whole.paths.archive / "shard=0000").keys()
    assert [path.name for path in settings.paths.archive.iterdir()] == ["shard=0000"]


RUN = """
import os, signal, sys, time
from pathlib import Path
import caco_assets.imagery.ingest.fill_shard as fill_shard
from caco_assets.imagery.on_record import ingest_shard
from caco_assets.observability.logs import log_to
from caco_assets.settings import CatalogSource, Sampling, load_settings

home, catalog, sampling = Path(sys.argv[1]), Path(sys.argv[2]), Sampling.model_validate_json(sys.argv[3])
shard, pause = int(sys.argv[4]), float(sys.argv[5])
settings = load_settings("tiny", home=home)
imagery = settings.imagery.model_copy(update={"source": CatalogSource(path=catalog), "workers": 1, "seasons": 3})
settings = settings.model_copy(update={"sampling": sampling, "imagery": imagery})
encode = fill_shard.encode

def slow(*arguments):
    time.sleep(pause)
    return encode(*arguments)

fill_shard.encode = slow
with log_to(lambda _level, line: print(line, flush=True)):
    ingest_shard(settings, shard)
"""


def start(settings, shard: int, pause: float) -> subprocess.Popen:
    arguments = [str(settings.home), str(settings.imagery.source.path), settings.sampling.model_dump_json(), str(shard), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def journalled(settings) -> int:
    return sum(path.stat().st_size for path in settings.paths.archive.rglob("journal.jsonl"))


@pytest.mark.integration
@pytest.mark.systems
def test_a_shard_killed_again_and_again_is_finished_with_the_same_bytes(twin):
    whole, fresh = twin
    settings = fresh("killed")
    for _ in range(3):
        before, deadline = journalled(settings), time.monotonic() + 60
        with start(settings, 0, 0.1) as process:
            while journalled(settings) <= before and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert journalled(settings) > before
    ingest_shard(settings, 0)
    assert contents(settings.paths.archive / "shard=0000") == contents(whole.paths.archive / "shard=0000")


@pytest.mark.integration
@pytest.mark.systems
def test_two_processes_on_two_shards_and_two_on_one_give_the_archive_of_one(twin):
    whole, fresh = twin
    ingest_shard(whole, 1)
    settings = fresh("several")
    processes = [start(settings, shard, 0.2) for shard in (0, 1, 0)]
    said = "".join(process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert contents(settings.paths.archive) == contents(whole.paths.archive)
    # of the two on one shard one waits, and finds it made
    assert "archive/shard=0000: another process holds the lock; waiting" in said
    assert said.count("100% 18/18") == 1
    for shard in (0, 1):
        assert ingest_shard(settings, shard).reused


def test_a_lock_is_held_by_one_at_a_time_and_given_back(logged, tmp_path):
    said = logged()
    with file_lock(tmp_path / "deep" / "a.lock", "a"):
        pass
    with file_lock(tmp_path / "deep" / "a.lock", "a"):
        pass
    assert said == []
