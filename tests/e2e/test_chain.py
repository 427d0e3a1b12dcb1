"""The whole chain on the smallest embedded Earth: through Dagster, twice, and what a user does with the result."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caco_assets.imagery.archive.shard import read_index
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.pack.format import Pack
from caco_assets.services.local_stack import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.systems]

CACO = [sys.executable, "-m", "caco_assets.cli"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the chain has run once."""
    folder = tmp_path_factory.mktemp("home")
    _caco(folder, "demo")
    return folder


def _caco(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CACO_HOME": str(home), "CACO_PROFILE": "tiny", "CACO_REAL": str(home / "absent")}
    done = subprocess.run([*CACO, *arguments], env=environment, cwd=home, text=True, capture_output=True, check=False)
    assert done.returncode == 0 or not check, f"{done.stdout}\n{done.stderr}"
    return done


def _products(home: Path) -> dict[str, str]:
    records = (home / "workspace" / "tiny" / "records").rglob("*.json")
    return {str(path): json.loads(path.read_text())["content_hash"] for path in records}


def test_the_demo_ends_with_scorecard_report_version_and_where_the_uis_are(home: Path) -> None:
    said = _caco(home, "demo").stdout
    assert "random" in said
    assert "report.html" in said
    assert "models:/caco-tiny@c" in said
    assert "make up" in said


def test_a_second_run_reuses_every_product(home: Path) -> None:
    before = _products(home)
    _caco(home, "demo")
    assert _products(home) == before


def test_dvc_finds_nothing_to_do_after_a_materialization(home: Path) -> None:
    environment = {**os.environ, "CACO_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=home, env=environment, text=True, capture_output=True, check=True
    )
    changed = {stage: what for stage, what in json.loads(status.stdout).items() if what != ["always changed"]}
    assert changed == {}


def test_every_registered_version_names_its_data(home: Path) -> None:
    import yaml

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'workspace' / 'mlflow' / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='caco-tiny'")
    lock = yaml.safe_load((home / "dvc.lock").read_text())
    (pack,) = lock["stages"]["pack@tiny"]["outs"]
    assert pack["md5"] in version.tags.values()
    assert version.run_id


@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
def test_dagster_knows_the_data_by_dvcs_hashes_and_finds_everything_fresh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg
    import yaml
    from dagster._core.definitions.data_version import DATA_VERSION_TAG, CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    from caco_assets.definitions import build_definitions
    from caco_assets.settings import load_settings

    monkeypatch.setenv("DAGSTER_HOME", str(home / "workspace" / "dagster"))
    graph = build_definitions(load_settings("tiny", home=home), "tiny").resolve_asset_graph()
    stages = yaml.safe_load((home / "dvc.lock").read_text())["stages"]
    with dg.DagsterInstance.get() as instance:
        for asset, stage in {"locations": "locations", "scenes": "scenes", "quarantine": "archive", "pack": "pack"}.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event.asset_materialization.tags[DATA_VERSION_TAG] == stages[f"{stage}@tiny"]["outs"][0]["md5"], asset
        stale = CachingStaleStatusResolver(instance=instance, asset_graph=graph, loading_context=LoadingContextForTest(instance))
        for asset in ("locations", "scenes", "quarantine", "pack", "encoder", "scores", "challenger"):
            assert stale.get_status(dg.AssetKey(asset)) == StaleStatus.FRESH, asset
        shown = instance.get_latest_materialization_event(dg.AssetKey("challenger")).asset_materialization.metadata
    assert "└─ data" in shown["lineage"].value
    assert shown["data.pack"].value == stages["pack@tiny"]["outs"][0]["md5"]


def test_a_restored_version_has_its_data_and_trains_to_the_same_bits(home: Path, tmp_path: Path) -> None:
    there = tmp_path / "then"
    said = _caco(home, "restore", "models:/caco-tiny/1", "--out", str(there)).stdout
    assert "gives the same weights" in said
    profile = ["--profile", str(there / "tiny.yaml")]
    assert "pack: unchanged" in _caco(there, "pack", *profile).stdout
    assert "encoder: made" in _caco(there, "pretrain", *profile).stdout
    weights = Path("workspace", "tiny", "encoder", "encoder.safetensors")
    assert (there / weights).read_bytes() == (home / weights).read_bytes()


def test_the_report_opens_from_disk_in_a_browser_without_the_network(home: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    asked, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((home / "workspace" / "tiny" / "report" / "report.html").as_uri())
        assert page.get_by_role("heading", level=1).inner_text()
        assert page.locator("table").count() > 1
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_embeddings_of_a_chip_are_those_of_the_training_code(home: Path, tmp_path: Path) -> None:
    """`caco embed` on a GeoTIFF taken out of the archive against the encoder on the pack's own bytes."""
    archive, pack = home / "workspace" / "tiny" / "data" / "archive", Pack.open(home / "workspace" / "tiny" / "data" / "pack")
    shard = archive / "shard=0000"
    row = next(row for row in read_index(shard).to_pylist() if row["location_id"] == pack.location_id[0])
    image = tmp_path / "chip.tif"
    image.write_bytes((shard / "chips.tar").read_bytes()[row["offset"] : row["offset"] + row["length"]])
    _caco(home, "embed", str(image), "--encoder", "models:/caco-tiny@challenger", "--out", str(tmp_path / "chip.npz"))

    encoder = Encoder.load(home / "workspace" / "tiny" / "encoder").eval()
    stored = pack.image(0, row["period"], row["season"])  # (H, W, C) uint8
    with torch.inference_mode():
        expected = encoder(encoder.normalise(stored.transpose(2, 0, 1)[None]))
    np.testing.assert_allclose(np.load(tmp_path / "chip.npz")["embedding"], expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[dict[str, str]]:
    """`caco up` on that home: name of a page → its address."""
    ports = [f"--{name}-port={free_port(0)}" for name in ("dagster", "mlflow", "pages")]
    environment = {**os.environ, "CACO_HOME": str(home), "CACO_PROFILE": "tiny", "CACO_REAL": str(home / "absent")}
    process = subprocess.Popen([*CACO, "up", *ports], env=environment, cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, f"ended early: {said}"
            said += line
        yield dict(re.findall(r"^(Dagster|MLflow|Report)\s+(\S+)", said, flags=re.MULTILINE))
    finally:
        process.terminate()
        process.wait(120)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def page(stack: dict[str, str]) -> Iterator[Any]:
    """A page of a real browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": 1500, "height": 950})
        # the first page waits for the code location, which a busy machine imports in minutes
        shown.set_default_timeout(240_000)
        yield shown
        browser.close()


@pytest.fixture
def picture(page: Any, tmp_path: Path) -> Callable[[str], None]:
    """Takes the picture of a name; `CACO_PICTURES=docs/images` keeps it for docs/operations.md."""
    folder = Path(os.environ.get("CACO_PICTURES", tmp_path))

    def take(name: str) -> None:
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / f"{name}.png")

    return take


def test_a_user_materializes_an_asset_in_dagster(stack: dict[str, str], page: Any, picture: Callable[[str], None]) -> None:
    before = _runs(stack["Dagster"])
    page.goto(f"{stack['Dagster']}/assets/report")
    # its icon is a part of the button's name for screen readers
    page.get_by_role("button").filter(has_text=re.compile("^Materialize$")).click()
    deadline = time.monotonic() + 400
    while len(runs := _runs(stack["Dagster"])) == len(before) or runs[0]["status"] not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < deadline, f"no run has ended: {runs[:1]}"
        page.wait_for_timeout(1000)
    assert runs[0]["status"] == "SUCCESS"
    page.goto(f"{stack['Dagster']}/runs/{runs[0]['runId']}")
    page.get_by_text("Success", exact=True).first.wait_for()
    page.get_by_text("report").first.wait_for()
    picture("dagster_run")


def test_dagster_shows_metadata_lineage_and_checks(stack: dict[str, str], page: Any, picture: Callable[[str], None]) -> None:
    page.goto(f"{stack['Dagster']}/assets/encoder")
    page.get_by_text("content_hash", exact=True).first.wait_for()
    picture("dagster_encoder")
    page.goto(f"{stack['Dagster']}/assets/encoder?view=lineage")
    for neighbour in ("pack", "scores"):
        page.get_by_text(neighbour, exact=True).first.wait_for()
    picture("dagster_lineage")
    page.goto(f"{stack['Dagster']}/assets/locations?view=checks")
    page.get_by_text("locations_are_valid").first.wait_for()
    page.get_by_text("Passed").first.wait_for()
    picture("dagster_checks")


def test_mlflow_shows_the_version_and_its_alias(stack: dict[str, str], page: Any, picture: Callable[[str], None]) -> None:
    page.goto(f"{stack['MLflow']}/#/models/caco-tiny")
    page.get_by_text("Version 1", exact=True).wait_for()
    page.get_by_text("challenger", exact=False).first.wait_for()
    picture("mlflow_model")


def test_a_user_fills_in_the_form_of_a_retraining(stack: dict[str, str], page: Any, picture: Callable[[str], None]) -> None:
    form = f"{stack['Dagster']}/locations/__repository__@caco_assets.definitions/jobs/retrain/playground"

    def launch(vintage: str) -> dict[str, Any]:
        """The form with another vintage, and the run that has ended."""
        page.goto(form)
        editor = page.locator(".CodeMirror")
        editor.get_by_text("vintage").wait_for()
        shown = ""
        # the browser remembers what was sent last, and puts it there a moment after the page has come
        while f"'{vintage}'" not in shown:
            shown = page.evaluate("document.querySelector('.CodeMirror').CodeMirror.getValue()")
            fields = shown.partition("resources:")[0]
            names = re.findall(r"^ +(\w+): \S+$", fields, flags=re.MULTILINE)
            assert names == ["data_only", "epochs", "force", "only_look", "vintage", "warm_start"]
            edited = re.sub(r"vintage: \S+", f"vintage: '{vintage}'", fields)
            page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", edited)
            page.wait_for_timeout(1500)
        # with the cursor in it, the form says what each field is for
        editor.get_by_text("vintage").click()
        page.get_by_text("YYYY-MM, a month that is over").first.wait_for()
        page.mouse.move(700, 600)
        picture("dagster_retrain")
        before = len(_runs(stack["Dagster"]))
        page.get_by_role("button").filter(has_text="Launch Run").click()
        return _wait(page, stack["Dagster"], lambda runs: runs[-1 - before] if len(runs) > before else None, ended=True)

    refused = launch("2999-01")
    assert refused["status"] == "FAILURE"
    page.goto(f"{stack['Dagster']}/runs/{refused['runId']}")
    page.get_by_text("vintage=2999-01: that month is not over", exact=False).first.wait_for()

    taken = launch("2025-03")
    assert taken["status"] == "SUCCESS"
    key = {"key": "dagster/run_key", "value": f"form-{taken['runId']}"}
    asked = _wait(page, stack["Dagster"], lambda runs: next((run for run in runs if key in run["tags"]), None))
    # it has been asked for, which is enough here
    stop = 'mutation { terminateRuns(runIds: ["%s"], terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename } }'
    _query(stack["Dagster"], stop % asked["runId"])
    assert asked["jobName"] == "chain"
    assert {"key": "vintage", "value": "2025-03"} in asked["tags"]


def _wait(
    page: Any, dagster: str, wanted: Callable[[list[dict[str, Any]]], dict[str, Any] | None], *, ended: bool = False
) -> dict[str, Any]:
    deadline = time.monotonic() + 400
    while (run := wanted(runs := _runs(dagster))) is None or (ended and run["status"] not in ("SUCCESS", "FAILURE", "CANCELED")):
        assert time.monotonic() < deadline, runs[:2]
        page.wait_for_timeout(500)
    return run


def _runs(dagster: str) -> list[dict[str, Any]]:
    """Newest first."""
    return _query(dagster, "{ runsOrError { ... on Runs { results { runId jobName status tags { key value } } } } }")[
        "runsOrError"
    ]["results"]


def _query(dagster: str, query: str) -> dict[str, Any]:
    data = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{dagster}/graphql", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]
