"""A home folder that was moved or copied: its registry reads and writes its own files, and leaves the original alone."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.core.products import produce
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.resources.mlflow.moved_home import adopt, foreign_addresses
from caco_assets.settings import Settings, load_settings

MODEL = "encoder"


def used(settings: Settings) -> Tracking:
    """A registry with one run, its file, and one registered version."""
    tracking = open_tracking(settings)
    client = tracking.client
    run = client.create_run(tracking.experiment_id)
    client.log_text(run.info.run_id, "original", "weights/file.txt")
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, f"{run.info.artifact_uri}/weights", run.info.run_id)
    return tracking


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("original") / "home"
    used(load_settings("tiny", home=home))
    return home


@pytest.fixture
def at(tmp_path: Path, original: Path) -> Callable[[str], Settings]:
    """Settings of a copy of the original home."""

    def copied(name: str) -> Settings:
        shutil.copytree(original, tmp_path / name)
        return load_settings("tiny", home=tmp_path / name)

    return copied


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def only_version(tracking: Tracking) -> Path:
    (version,) = tracking.client.search_model_versions(f"name='{MODEL}'")
    return Path(tracking.client.get_model_version_download_uri(MODEL, version.version))


def test_a_moved_home_reads_and_writes_its_own_files(
    at: Callable[[str], Settings], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    at("old")
    moved = load_settings("tiny", home=(tmp_path / "old").rename(tmp_path / "new name"))
    # what the copied database names is the home that the fixture made; the move itself is one more step of the same kind
    lines = logged()
    tracking = open_tracking(moved)
    assert len(lines) == 1
    assert "moved or copied from" in lines[0]
    artifacts = moved.paths.workspace / "mlflow" / "artifacts"
    assert only_version(tracking).is_relative_to(artifacts)
    assert (only_version(tracking) / "file.txt").read_text() == "original"
    run = tracking.client.create_run(tracking.experiment_id)
    tracking.client.log_text(run.info.run_id, "x", "y.txt")
    assert run.info.artifact_uri.startswith(str(artifacts))
    assert not (tmp_path / "old").exists()
    lines = logged()
    open_tracking(moved)
    assert lines == []


def test_a_copied_home_does_not_touch_the_original(at: Callable[[str], Settings], original: Path) -> None:
    before = files(original)
    copy = at("copy")
    tracking = open_tracking(copy)
    (only_version(tracking) / "file.txt").write_text("changed in the copy")
    run = tracking.client.create_run(tracking.experiment_id)
    tracking.client.log_text(run.info.run_id, "new", "y.txt")
    assert files(original) == before


def test_a_copy_without_its_artifacts_is_refused_and_left_as_it_was(at: Callable[[str], Settings]) -> None:
    copy = at("copy")
    database = copy.paths.workspace / "mlflow" / "mlflow.db"
    shutil.rmtree(database.with_name("artifacts"))
    before = database.read_bytes()
    with pytest.raises(UserError, match=r"moved or copied from .*the files of 1 registered versions are still there only; copy"):
        open_tracking(copy)
    assert database.read_bytes() == before


def test_files_that_are_lost_everywhere_do_not_stop_the_rest(at: Callable[[str], Settings], tmp_path: Path) -> None:
    copy = at("copy")
    database = copy.paths.workspace / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        gone = "/gone/workspace/mlflow/artifacts/tiny/x"
        connection.execute("UPDATE model_versions SET source = ?, storage_location = ?", (gone, gone))
    (foreign, _) = foreign_addresses(database, database.with_name("artifacts"))
    assert (foreign.root, foreign.count, foreign.lost) == (Path("/gone/workspace/mlflow/artifacts"), 2, ())
    assert only_version(open_tracking(copy)) == database.with_name("artifacts") / "tiny" / "x"


def test_addresses_elsewhere_are_kept(at: Callable[[str], Settings]) -> None:
    copy = at("copy")
    database = copy.paths.workspace / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = 's3://bucket/mlflow/artifacts/tiny'")
    adopt(database, database.with_name("artifacts"))
    with closing(sqlite3.connect(database)) as connection:
        assert set(connection.execute("SELECT DISTINCT artifact_location FROM experiments")) == {
            ("s3://bucket/mlflow/artifacts/tiny",)
        }


def test_a_home_behind_a_link_is_not_taken_for_a_moved_one(at: Callable[[str], Settings], tmp_path: Path) -> None:
    copy = at("copy")
    open_tracking(copy)
    (tmp_path / "link").symlink_to(copy.home)
    artifacts = tmp_path / "link" / "workspace" / "mlflow" / "artifacts"
    assert foreign_addresses(copy.paths.workspace / "mlflow" / "mlflow.db", artifacts) == []


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, whatever its name says" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db: not readable as MLflow's database"):
        adopt(tmp_path / "mlflow.db", tmp_path / "artifacts")


def told(settings: Settings, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str]:
    monkeypatch.setenv("CACO_HOME", str(settings.home))
    result = CliRunner().invoke(main, ["doctor", "--profile", "tiny", *options])
    return result.exit_code, result.output


def test_the_doctor_finds_a_copied_home_and_changes_nothing(at: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    copy = at("copy")
    before = files(copy.home)
    status, text = told(copy, monkeypatch)
    assert status == 1
    assert "registry: 1 wrong" in text
    assert "out of this home: it was moved or copied" in text
    assert files(copy.home) == before
    open_tracking(copy)
    assert "registry: ok" in told(copy, monkeypatch)[1]


def test_the_doctor_names_a_version_without_files_and_a_product_that_has_changed(
    at: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = at("copy")
    shutil.rmtree(only_version(open_tracking(copy)))

    def scores(path: Path) -> dict:
        path.write_text("scores")
        return {}

    made = {"records": copy.paths.records, "recipe": "1", "inputs": {}}
    produce("scores", copy.paths.scores, make=scores, **made)
    produce("drift", copy.paths.root / "data" / "drift.json", make=scores, **made)
    copy.paths.scores.write_text("others")
    (copy.paths.root / "data" / "drift.json").unlink()
    (copy.paths.records / "pack.json").write_text("{")
    for options in ((), ("--deep",)):
        status, text = told(copy, monkeypatch, *options)
        assert status == 1
        assert f"models:/{MODEL}/1: its files are missing" in text
        assert "products: 3 wrong" in text
        for words in (
            "scores.parquet: its content",
            "drift.json: missing, though drift is recorded",
            "pack.json: not readable as JSON",
        ):
            assert words in text
