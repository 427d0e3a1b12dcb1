"""Does the chain end with the same bytes however often it is killed, and are hostile answers and damaged files refused?

Kills: the stages of the profile `tiny`, in one process, which SIGKILL ends at a random moment, again and again, until it is
through; then a new home, until `--kills` are spent. Each home is compared with one that nobody has disturbed: products, chips and
versions that are missing (`lost`), chips and versions that are there twice (`doubled`), and products with other bytes
(`differing`). Situations: `pytest tests/field`, which holds the hostile answers of servers and the damaged files.

The last line is one JSON object; the bar is 0 lost, 0 doubled, 0 differing and no failed situation. `--quick`: five kills, and the
situations are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq

from caco_assets.core.products import content_hash
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.versions import IDENTITY, versions
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings, load_settings

STAGES = (
    *("sample", "plan", "ingest", "pack", "benchmarks", "parent"),
    *("pretrain", "change-maps", "score", "report", "register"),
)
CHAIN = """
import sys
from caco_assets.cli import main
for stage in sys.argv[1:]:
    try:
        main([stage])
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"{stage} ended with {ended.code}")
"""
REPOSITORY = Path(__file__).parents[1]
PROMPT_S = 2.0
"""No kill earlier: before, only imports run."""


@dataclass
class Found:
    """What differs from the undisturbed home."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def start(home: Path) -> subprocess.Popen[str]:
    """The whole chain of `tiny` in a process group of its own."""
    environment = {**os.environ, "CACO_HOME": str(home), "CACO_PROFILE": "tiny", "CACO_REAL": str(home / "absent")}
    command = [sys.executable, "-c", CHAIN, *STAGES]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the chain.

    Raises:
        RuntimeError: it has failed.
    """
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the chain ended with {process.returncode}: {errors[-2000:]}")


def kill_until_done(home: Path, kills: int, longest_s: float, generator: random.Random) -> int:
    """Start the chain, kill it at a random moment, and start it again, until it ends or the kills are spent; how many it took."""
    for spent in range(kills):
        process = start(home)
        moment = generator.uniform(PROMPT_S, longest_s)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            continue
        finish(process)
        return spent
    finish(start(home))
    return kills


def digests(settings: Settings) -> dict[str, str]:
    """Product → hash of what must be the same; the metrics of a training hold times and are left out."""
    paths = settings.paths
    products = [paths.locations, paths.scenes, paths.quarantine, paths.pack, paths.scores]
    products += [paths.change_maps / "change_maps.parquet", paths.encoder / "encoder.safetensors", paths.encoder / "encoder.json"]
    products += sorted(paths.archive.glob("shard=*"))
    return {path.relative_to(paths.root).as_posix(): content_hash(path) for path in products if path.exists()}


def compare(settings: Settings, expected: dict[str, str], chips: Counter[str]) -> Found:
    """What this home lacks, has twice, or has differently."""
    ours, found = digests(settings), Found()
    found.lost += sorted(expected.keys() - ours.keys())
    found.differing += sorted(name for name in expected.keys() & ours.keys() if ours[name] != expected[name])
    counted = count_chips(settings)
    found.lost += sorted((chips - counted).elements())
    found.doubled += sorted(name for name, count in counted.items() if count > 1)
    identity = Encoder.load(settings.paths.encoder).identity
    registered = versions(open_tracking(settings), settings.registry.model)
    same = [version for version in registered if version.tags.get(IDENTITY) == identity]
    if not same:
        found.lost.append("registered version")
    found.doubled += [f"version {version.version}" for version in same[1:]]
    return found


def count_chips(settings: Settings) -> Counter[str]:
    """Id of each archived chip → how often it is there."""
    tables = [pq.read_table(file, columns=["id"]) for file in sorted(settings.paths.archive.glob("shard=*/chips.parquet"))]
    return Counter(name for table in tables for name in table["id"].to_pylist())


def situations() -> tuple[int, int]:
    """Passed and failed tests of `tests/field`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests/field", "-n", "0", "-m", "not systems", f"--junitxml={report}"]
        subprocess.run(command, cwd=REPOSITORY, check=False, stdout=subprocess.DEVNULL)
        suite = next(iter(ElementTree.parse(report).getroot()))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return int(suite.get("tests", 0)) - failed - int(suite.get("skipped", 0)), failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    kills, generator = 5 if options.quick else options.kills, random.Random(options.seed)
    found, homes, spent = Found(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        begun = time.monotonic()
        finish(start(Path(name) / "undisturbed"))
        longest_s = time.monotonic() - begun
        settings = load_settings("tiny", home=Path(name) / "undisturbed")
        expected, chips = digests(settings), count_chips(settings)
        print(f"undisturbed: {longest_s:.0f} s, {len(expected)} products, {sum(chips.values())} chips", flush=True)
        while spent < kills:
            home = Path(name) / f"home{homes}"
            used = kill_until_done(home, kills - spent, longest_s, generator)
            one = compare(load_settings("tiny", home=home), expected, chips)
            found.lost += one.lost
            found.doubled += one.doubled
            found.differing += one.differing
            homes, spent = homes + 1, spent + used
            print(f"home {homes}: {used} kills; {one}", flush=True)
    passed, failed = (0, 0) if options.quick else situations()
    counts = {"lost": len(found.lost), "doubled": len(found.doubled), "differing": len(found.differing)}
    good = not any(counts.values()) and not failed
    result = {"benchmark": "faults", "kills": spent, "homes": homes, **counts, "situations": passed, "failed_situations": failed}
    print(json.dumps({**result, "ratio": 1.0 if good else 0.0, "low": 1.0, "high": 1.0, "bar": 1.0, "pass": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
