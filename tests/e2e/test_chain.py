"""The whole chain on the smallest embedded Earth: through Dagster, twice, and what a user does with the result."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.imagery.archive import read_index
from caco_assets.pretraining.encoder import Encoder
from caco_assets.pretraining.pack import Pack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

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


def test_a_second_run_makes_nothing_again(home: Path) -> None:
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


def test_dagster_knows_the_data_by_dvcs_hashes_and_finds_everything_fresh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg
    import yaml
    from dagster._core.definitions.data_version import DATA_VERSION_TAG

    monkeypatch.setenv("DAGSTER_HOME", str(home / "workspace" / "dagster"))
    stages = yaml.safe_load((home / "dvc.lock").read_text())["stages"]
    with dg.DagsterInstance.get() as instance:
        for asset, stage in {"locations": "locations", "scenes": "scenes", "quarantine": "archive", "pack": "pack"}.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event.asset_materialization.tags[DATA_VERSION_TAG] == stages[f"{stage}@tiny"]["outs"][0]["md5"], asset
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
