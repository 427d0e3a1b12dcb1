"""What is watched: figures scraped for real over loopback, and logs whose lines have fields."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from caco_assets.observability.logs import bind, bound, json_line
from caco_assets.observability.metrics import METRICS
from caco_assets.resources.prometheus_exporter import READ, _Reader

pytestmark = pytest.mark.deploy

REPOSITORY = Path(__file__).resolve().parents[2]
WATCH = REPOSITORY / "deploy" / "watch"
# endings that Prometheus knows of a kind
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
NAMES = {one.name + ending for one in (*METRICS, *READ) for ending in ENDINGS[one.kind]}
WORKER = """
from caco_assets.pretraining.launch.prometheus_sink import prometheus_sinks
from caco_assets.observability.metrics import count, gauge, observe
(sink,) = prometheus_sinks(batch_size=8)
sink.log(5, {"loss": 2.5, "grad_norm": 0.25})
count("caco_chips", 3)
count("caco_quarantined", 2, reason="cloudy")
gauge("caco_shards_waiting", 7)
observe("caco_shard_seconds", 42)
"""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The exporter's address, and the environment of its workers."""
    told = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "figures"), "CACO_HOME": str(tmp_path)}
    told.pop("DAGSTER_HOME", None)
    line = [sys.executable, "-m", "caco_assets.cli", "metrics", "--port", "0"]
    with subprocess.Popen(line, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as exporter:
        url = exporter.stdout.readline().strip()
        assert url, exporter.communicate()[1]
        yield url, told
        exporter.terminate()


def scrape(url: str) -> dict[str, float]:
    """Sample with its labels → value."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_two_processes_that_have_ended_are_scraped_as_one_sum(watched):
    url, told = watched
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WORKER], env=told, check=True)
    found = scrape(url)
    assert found["caco_chips_total"] == 6
    assert found['caco_quarantined_total{reason="cloudy"}'] == 4
    assert found["caco_shards_waiting"] == 7
    assert found["caco_training_loss"] == 2.5
    assert found["caco_training_images"] == 40
    assert found['caco_shard_seconds_bucket{le="60.0"}'] == 2
    assert found["caco_disk_free_bytes"] > 0
    assert {name.partition("{")[0] for name in found} <= NAMES


@pytest.mark.slow
def test_a_backfill_is_counted_and_its_lines_say_which_shard(watched, tmp_path):
    url, told = watched
    code = """
from caco_assets.imagery.backfill import ingest_shards
from caco_assets.imagery.on_record import plan
import logging
from caco_assets.observability.logs import log_to_stderr
log_to_stderr()
from caco_assets.sampling.stage import sample
from caco_assets.settings import load_settings
from caco_assets.synthetic.stage import build_catalog
settings = load_settings("tiny", sampling={"places": 2, "places_per_shard": 1})
for stage in (sample, build_catalog, plan):
    stage(settings)
print(sum(product.facts["chips"] for _, product in ingest_shards(settings, range(2))))
"""
    done = subprocess.run([sys.executable, "-c", code], env=told | {"CACO_LOG": "json"}, capture_output=True, text=True, check=True)
    found = scrape(url)
    assert found["caco_chips_total"] >= int(done.stdout) > 0
    assert found['caco_shards_total{outcome="made"}'] == 2
    assert found["caco_shards_waiting"] == 0
    assert found["caco_archived_bytes_total"] > 0
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["shard"] for line in said} == {"0000", "0001"}
    assert {line["vintage"] for line in said} == {"2026-10"}


def test_an_exporter_without_a_folder_of_figures_says_so_in_one_line(tmp_path):
    told = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"} | {"CACO_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "caco_assets.cli", "metrics"], env=told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("caco: PROMETHEUS_MULTIPROC_DIR is not set")
    assert done.stderr.count("\n") == 1


def test_dagsters_queue_is_read_at_each_scrape(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        reader = _Reader(tmp_path, instance)
        for name, status in (("first", dg.DagsterRunStatus.STARTING), ("second", dg.DagsterRunStatus.STARTED)):
            instance.add_run(dg.DagsterRun(job_name=name, status=status))
        (runs,) = (family for family in reader.collect() if family.name == "caco_runs")
    assert {sample.labels["status"]: sample.value for sample in runs.samples} == {"queued": 0, "starting": 1, "started": 1}


def test_lines_are_json_objects_with_run_vintage_and_shard(tmp_path):
    code = """
import logging
from caco_assets.observability.logs import log_to_stderr
log_to_stderr()
from caco_assets.observability.logs import bind, bound
bind(run="r1", vintage="2026-10")
with bound(shard="0003"):
    logging.getLogger("caco_assets").info("shard 0003: 4/12")
logging.getLogger("caco_assets").info("done")
"""
    told = {**os.environ, "CACO_LOG": "json"}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
    first, last = map(json.loads, done.stderr.splitlines())
    fields = {"level": "info", "message": "shard 0003: 4/12", "run": "r1", "vintage": "2026-10", "shard": "0003"}
    assert {name: value for name, value in first.items() if name != "time"} == fields
    assert "shard" not in last


def test_json_lines_of_a_child_process_are_passed_on_unchanged():
    bind()
    with bound(shard="0001"):
        said = json_line("a line")
    assert json_line(said) == said
    assert "shard" not in json.loads(json_line("another"))


def expressions() -> list[str]:
    board = json.loads((WATCH / "dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    rules = [rule for group in yaml.safe_load((WATCH / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    return shown + [rule["expr"] for rule in rules]


def test_every_figure_of_the_dashboard_and_the_alerts_exists():
    named = {name for expression in expressions() for name in re.findall(r"\bcaco_\w+", expression)}
    assert named - NAMES == set()
    # and every figure that is counted is looked at
    bases = {one.name for one in (*METRICS, *READ)}
    assert {base for base in bases if not any(name.startswith(base) for name in named)} == set()


def test_every_alert_has_a_line_in_the_runbook():
    text = (REPOSITORY / "deploy" / "watch" / "README.md").read_text()
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)}
    for group in yaml.safe_load((WATCH / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert page == "deploy/watch/README.md"
            assert anchor in anchors
            assert rule["annotations"]["summary"]


def test_prometheus_itself_accepts_the_rules():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): the rules' syntax is not checked by Prometheus itself")
    done = subprocess.run(["promtool", "check", "rules", str(WATCH / "alerts.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
