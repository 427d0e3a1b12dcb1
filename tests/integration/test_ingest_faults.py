"""A provider that fails in every way, and processes that are killed: the archive is complete and the same to the bit.

The quick twins are `tests/imagery/reading/test_cog_reader.py` and `tests/imagery/ingest/test_ingest_resume.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.ingest import fill_shard
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.imagery.reading.http.range_client import RetryPolicy
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings

pytestmark = [pytest.mark.integration, pytest.mark.systems]

KINDS = "403,429,500,503,silence,reset,truncated,slow,html,xml"
HASTE = RetryPolicy(attempts=8, first_wait_s=0.02, longest_wait_s=0.5, silence_s=0.6, slowest_bytes_per_s=5e5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def clean(tiny_home: Path) -> Settings:
    """The embedded Earth at its smallest, read from the disk without any trouble."""
    return load_settings("tiny", home=tiny_home)


def index_of(catalog: Path, address: str, folder: Path) -> Path:
    """A catalog of the same items whose files are a provider's."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    items = []
    for path in sorted(catalog.glob("*/*/*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = f"{address}/{(path.parent / asset['href']).relative_to(catalog).as_posix()}"
        items.append({**item, "links": []})
    folder.mkdir()
    to_parquet(parse_stac_items_to_arrow(items), folder / "items.parquet")
    return folder


def planned(home: Path, index: Path) -> Settings:
    settings = load_settings("tiny", home=home, imagery={"source": {"kind": "catalog", "path": str(index)}})
    sample(settings)
    plan(settings)
    return settings


def test_failures_in_one_request_of_ten_leave_no_trace(clean, serving, tmp_path, monkeypatch):
    monkeypatch.setattr(fill_shard, "Concurrency", partial(fill_shard.Concurrency, patience=HASTE))
    with serving(clean.paths.catalog, patience=1.0) as provider:
        settings = planned(tmp_path / "home", index_of(clean.paths.catalog, provider.address, tmp_path / "index"))
        provider.fail(kinds=KINDS, share=0.1, seed=1)
        for shard in (0, 1):
            ingest_shard(settings, shard)
        stats = provider.stats()
    assert contents(settings.paths.archive) == contents(clean.paths.archive)
    failed = {kind for kind in KINDS.split(",") if stats[f"failed {kind}"]}
    assert len(failed) >= 8, stats


RUN = """
import sys
from pathlib import Path
import caco_assets.imagery.ingest.fill_shard as fill_shard
from caco_assets.imagery.reading.http.range_client import RetryPolicy
from caco_assets.imagery.on_record import ingest_shard
from caco_assets.settings import load_settings

home, index, shard = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
settings = load_settings("tiny", home=home, imagery={"source": {"kind": "catalog", "path": index}})
limits = fill_shard.Concurrency
patience = RetryPolicy(attempts=8, first_wait_s=0.02, longest_wait_s=0.5, silence_s=0.6, slowest_bytes_per_s=5e5)
fill_shard.Concurrency = lambda workers, connections: limits(1, 3, patience)
ingest_shard(settings, shard)
"""


def start(home: Path, index: Path, shard: int) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(home), str(index), str(shard)], env=environment)


def journalled(settings: Settings, shard: int) -> int:
    """Bytes of the shard's journal; a finished shard has more than any."""
    if (settings.paths.archive / f"shard={shard:04d}").exists():
        return 1 << 40
    return sum(path.stat().st_size for path in settings.paths.archive.glob(f".shard={shard:04d}.partial-*/journal.jsonl"))


def test_two_processes_killed_again_and_again_over_a_failing_provider_make_the_archive_of_a_clean_run(clean, serving, tmp_path):
    with serving(clean.paths.catalog, latency=0.01, patience=1.0) as provider:
        index = index_of(clean.paths.catalog, provider.address, tmp_path / "index")
        settings = planned(tmp_path / "home", index)
        provider.fail(kinds=KINDS, share=0.1, seed=2)
        kills = 0
        for _ in range(3):
            before = [journalled(settings, shard) for shard in (0, 1)]
            processes = [start(settings.home, index, shard) for shard in (0, 1)]
            for shard, process in enumerate(processes):
                while process.poll() is None and journalled(settings, shard) <= before[shard]:
                    time.sleep(0.01)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
        assert kills >= 2
        last = [start(settings.home, index, shard) for shard in (0, 1)]
        assert [process.wait(timeout=300) for process in last] == [0, 0]
        assert sum(number for name, number in provider.stats().items() if name.startswith("failed ")) > 20
    assert contents(settings.paths.archive) == contents(clean.paths.archive)
    assert verify_archive(settings.paths.archive) == []
    assert collect(settings).facts == collect(clean).facts
