"""The whole chain on the smallest embedded Earth: through Dagster, twice, and what a user does with the result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    import mlflow
    import yaml

    client = mlflow.MlflowClient(f"sqlite:///{home / 'workspace' / 'mlflow' / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='caco-tiny'")
    lock = yaml.safe_load((home / "dvc.lock").read_text())
    (pack,) = lock["stages"]["pack@tiny"]["outs"]
    assert pack["md5"] in version.tags.values()
    assert version.run_id


def test_the_report_opens_from_disk(home: Path) -> None:
    page = (home / "workspace" / "tiny" / "report" / "report.html").read_text()
    assert "<html" in page
    assert 'src="http' not in page
    assert "<link" not in page or 'href="http' not in page.split("<link")[1].split(">")[0]
