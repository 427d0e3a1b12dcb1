"""Two nodes of a real Ray cluster make what one process makes, also when one of them is lost in the middle."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.backfill import ingest_shards
from caco_assets.imagery.on_record import collect, plan
from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.stage import build_catalog

pytestmark = [pytest.mark.deploy, pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE_S = 500
SHARDS = {"sampling": {"places": 24, "places_per_shard": 2}}
BANDS = ("B04", "B03", "B02")
# timm's smallest network without batch norm, which CPUs cannot synchronise; 24 samples are 3 steps of an epoch
TRAINING = {"backbone": "test_convnext", "image_size": 32, "batch_size": 8, "queue_size": 32, "epochs": 10, "learning_rate": 0.003}
TRAINING |= {"threads": 1, "device": "cpu", "probe_every": 0}
STEPS = 30


class Nodes:
    """The cluster's process."""

    def __init__(self) -> None:
        # two cores each, so that the one that is left can take the place of both
        command = [sys.executable, str(Path(__file__).with_name("two_nodes.py")), "2"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = self._answer()

    def lose_one(self) -> None:
        """Kill the second node."""
        self.process.stdin.write("lose\n")
        self.process.stdin.flush()
        assert self._answer() == "lost"

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def _answer(self) -> str:
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1][-2000:]
        return line


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A cluster of its own for each test: each loses a node."""
    cluster = Nodes()
    try:
        yield cluster
    finally:
        cluster.end()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def archive_of(settings: Settings) -> dict[str, str]:
    """File → sha256 of everything in the archive and its quarantine."""
    archive = settings.paths.archive
    assert verify_archive(archive) == []
    hashes = {p.relative_to(archive).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in archive.rglob("*.*")}
    return {**hashes, "quarantine": collect(settings).content_hash}


def test_a_backfill_over_two_nodes_of_which_one_is_lost_makes_the_archive_that_one_process_makes(
    nodes: Nodes, tmp_path: Path
) -> None:
    alone = load_settings("tiny", home=tmp_path / "alone", **SHARDS)
    sample(alone)
    build_catalog(alone)
    plan(alone)
    together = load_settings("tiny", home=Path(shutil.copytree(alone.home, tmp_path / "together", symlinks=True)), **SHARDS)
    assert len(dict(ingest_shards(alone, range(12)))) == 12

    told = {"CACO_HOME": str(together.home), "CACO_SAMPLING__PLACES": "24", "CACO_SAMPLING__PLACES_PER_SHARD": "2"}
    told |= {"CACO_IMAGERY__LAUNCHER": "ray", "CACO_IMAGERY__WORKERS": "2", "RAY_ADDRESS": nodes.address}
    line = [sys.executable, "-m", "caco_assets.cli", "ingest", "--profile", "tiny"]
    backfill = subprocess.Popen(
        line, env={**os.environ, **told}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=together.home
    )
    # each node is at work on a shard when the first shards are whole
    wait_until(lambda: len(list(together.paths.archive.glob("shard=*"))) >= 2, backfill)
    nodes.lose_one()
    out, said = backfill.communicate(timeout=PATIENCE_S)
    assert backfill.returncode == 0, said[-3000:]
    assert out.count(": made ") == 13  # the shards and the quarantine
    assert "its machine or process was lost; started again" in said
    assert archive_of(together) == archive_of(alone)


class Chip:
    """Noise of one place and date."""

    lon = lat = 0.0

    def __init__(self, place: int, period: int, season: int) -> None:
        self.location_id, self.period, self.season = f"L{place:07d}", period, season
        self.pixels = np.random.default_rng((place, period, season)).integers(1, 4000, (3, 40, 40), dtype=np.uint16)


def start(pack: Path, target: Path, environment: dict[str, str], **changes: object) -> subprocess.Popen[str]:
    """A training by the command line of its launcher."""
    options = load_settings("tiny", home=target.parent, pretraining={**TRAINING, **changes}).pretraining
    config = RunConfig(pack=pack, target=target, pretraining=options)
    file = target.with_name(f"{target.name}.json")
    file.write_text(config.model_dump_json())
    return subprocess.Popen(command(file, options), env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


def test_training_over_two_nodes_of_which_one_is_lost_gives_the_losses_of_one_process(nodes: Nodes, tmp_path: Path) -> None:
    chips = (Chip(*where) for where in np.ndindex(12, 2, 3))
    sizes = {"chip_size": 40, "seasons": 3, "min_seasons": 3, "total": 72}
    build(chips, tmp_path / "pack", bands=BANDS, archive_bands=BANDS, stretch="seco", **sizes)
    alone = start(tmp_path / "pack", tmp_path / "alone", {}, launcher="process")
    assert alone.communicate(timeout=PATIENCE_S)[1] is not None
    assert alone.returncode == 0

    # one on each node; the node that is left has a core for the other
    target = tmp_path / "run"
    spread = {"launcher": "ray", "nodes": 2, "processes": 1}
    training = start(tmp_path / "pack", target, {"RAY_ADDRESS": nodes.address}, **spread)
    wait_until((target / "checkpoint.pt").exists, training)
    nodes.lose_one()
    said = training.communicate(timeout=PATIENCE_S)[1].splitlines()
    assert training.returncode == 0, said
    assert "pretrain: a machine or process was lost; all have started again from the last checkpoint" in said
    assert any("resuming after epoch" in line for line in said), said

    ours, theirs = ([line for line in read_metrics(tmp_path / n / "metrics.jsonl") if "loss" in line] for n in ("run", "alone"))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, STEPS + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3), a["step"]
    weights = [load_file(tmp_path / name / "encoder.safetensors") for name in ("run", "alone")]
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], rtol=1e-2, atol=1e-4, err_msg=name)
