"""One word, `CACO_DEPLOYMENT`, says where all state is kept; what it asks for is there, or one line says what is missing."""

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.resources.dagster.instance import dagster_home, dagster_yaml
from caco_assets.services.server_processes import prepare
from caco_assets.settings import Settings, load_settings
from caco_assets.settings.deployment import DEPLOYMENTS, deployment, read_secrets

SECRET = "planted-6b1f"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a server, its secrets in one file."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    told = {
        "CACO_DEPLOYMENT": "server",
        "CACO_HOME": str(tmp_path),
        "CACO_PROFILE": "tiny",
        "PGHOST": "postgres",
        "PGUSER": "caco",
        "CACO_REGISTRY__TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_TRACKING_USERNAME": "caco",
        "CACO_VERSIONS__REMOTE": "s3://caco/dvc",
        "CACO_CODE_SERVER": "code:4000",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for name in ("PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        # set first, so that what is read from the file is forgotten after the test
        monkeypatch.setenv(name, "old")
        monkeypatch.setenv(f"{name}_FILE", str(secret))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch


def test_without_the_variable_everything_is_local(settings: Settings) -> None:
    assert deployment({}).name == "local"
    assert "storage" not in yaml.safe_load((dagster_home(settings) / "dagster.yaml").read_text())


def test_an_unknown_deployment_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="CACO_DEPLOYMENT=cloud: no such deployment; choose one of local, server, cluster"):
        deployment({"CACO_DEPLOYMENT": "cloud"})


def test_a_server_keeps_its_runs_in_postgresql_and_no_file_holds_a_secret(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings("tiny")
    assert os.environ["PGPASSWORD"] == SECRET
    config = (dagster_home(settings) / "dagster.yaml").read_text()
    assert yaml.safe_load(config)["storage"]["postgres"]["postgres_url"] == "postgresql+psycopg2:///dagster"
    assert SECRET not in config + settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PGHOST", "", r"CACO_DEPLOYMENT=server: PGHOST \(or PGHOST_FILE\): not set"),
        ("CACO_REGISTRY__TRACKING_URI", "sqlite:///x.db", "CACO_REGISTRY__TRACKING_URI has to be the address of an MLflow server"),
        ("CACO_REGISTRY__TRACKING_URI", "http://ada:pw@mlflow:5000", "without a login"),
        ("CACO_VERSIONS__REMOTE", "folder", "CACO_VERSIONS__REMOTE=folder: has to be in an object store"),
        ("PGPASSWORD_FILE", "nowhere", r"PGPASSWORD_FILE=nowhere: cannot be read \(FileNotFoundError\)"),
        ("PGPASSWORD_FILE", "/dev/null", "PGPASSWORD_FILE=/dev/null: is empty"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(server: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    server.setenv(name, value)
    with pytest.raises(UserError, match=said) as caught:
        load_settings("tiny")
    assert "\n" not in str(caught.value)
    assert ":pw@" not in str(caught.value)


def test_all_missing_variables_are_named_at_once(server: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGUSER", "MLFLOW_TRACKING_USERNAME"):
        server.delenv(name)
    with pytest.raises(UserError, match=r"PGHOST \(or PGHOST_FILE\), PGUSER \(or PGUSER_FILE\), MLFLOW_TRACKING_USERNAME"):
        load_settings("tiny")


def test_a_cluster_opens_its_store_by_the_role_of_its_pods(server: pytest.MonkeyPatch) -> None:
    server.setenv("CACO_DEPLOYMENT", "cluster")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        server.delenv(name)
        server.delenv(f"{name}_FILE")
    assert load_settings("tiny").versions.remote == "s3://caco/dvc"


def test_a_file_wins_over_a_value_so_that_a_rotated_secret_is_the_one_used(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new\n")
    told = {"PGPASSWORD": "old", "PGPASSWORD_FILE": str(tmp_path / "new")}
    read_secrets(told)
    assert told["PGPASSWORD"] == "new"


def test_the_instance_follows_the_deployment_and_an_edited_one_without_a_database_is_refused(
    server: pytest.MonkeyPatch, settings: Settings
) -> None:
    for name in ("local", "server", "cluster", "local", "server"):
        server.setenv("CACO_DEPLOYMENT", name)
        config = dagster_home(settings) / "dagster.yaml"
        assert config.read_text() == dagster_yaml(DEPLOYMENTS[name])
    config.write_text("telemetry: {enabled: false}\n")
    with pytest.raises(UserError, match="was edited and keeps runs in SQLite, with CACO_DEPLOYMENT=server; delete it"):
        dagster_home(settings)
    config.write_text("storage: {postgres: {postgres_url: 'postgresql://elsewhere'}}\n")
    assert "elsewhere" in (dagster_home(settings) / "dagster.yaml").read_text()


@pytest.mark.parametrize("name", ["server", "cluster"])
def test_dagster_accepts_the_instance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._config import process_config, resolve_to_config_type
    from dagster._core.instance.config import dagster_instance_config_schema
    from dagster_k8s import K8sRunLauncher
    from dagster_postgres.storage import DagsterPostgresStorage

    config = yaml.safe_load(dagster_yaml(DEPLOYMENTS[name]))
    known = dagster_instance_config_schema()
    assert set(config) - {"concurrency"} <= set(known)
    storage = process_config(resolve_to_config_type(DagsterPostgresStorage.config_type()), config["storage"]["postgres"])
    assert storage.success, storage.errors
    if name == "cluster":
        for told in ("CACO_SERVICE_ACCOUNT", "CACO_JOB_IMAGE", "CACO_NAMESPACE", "CACO_INSTANCE_CONFIG_MAP", "DAGSTER_HOME"):
            monkeypatch.setenv(told, told.lower())
        launcher = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config["run_launcher"]["config"])
        assert launcher.success, launcher.errors


def test_a_service_is_told_its_secrets_by_its_environment_alone(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, listens in (("code", "4000"), ("webserver", "3000"), ("daemon", "")):
        command, environ = prepare(name, "0.0.0.0", None)
        assert SECRET not in " ".join(command)
        assert listens in command or not listens
        assert environ["PGPASSWORD"] == SECRET
        assert Path(environ["DAGSTER_HOME"], "dagster.yaml").exists()
    assert (tmp_path / "dvc.yaml").exists()
    assert "caco-service" in " ".join(path.name for path in tmp_path.iterdir())


def test_the_server_of_mlflow_asks_for_logins_and_finds_its_database_by_itself(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.setenv("CACO_MLFLOW_ARTIFACTS", "s3://caco/mlflow")
    with pytest.raises(UserError, match="MLFLOW_FLASK_SERVER_SECRET_KEY"):
        prepare("mlflow", "0.0.0.0", None)
    server.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "caco")
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
        server.setenv(name, SECRET)
    command, environ = prepare("mlflow", "0.0.0.0", 5001)
    assert command[command.index("--app-name") + 1] == "basic-auth"
    assert "5001" in command
    assert environ["MLFLOW_BACKEND_STORE_URI"] == "postgresql:///mlflow"
    assert "database_uri = postgresql:///mlflow_auth" in Path(environ["MLFLOW_AUTH_CONFIG_PATH"]).read_text()


def test_servers_are_not_started_on_a_laptop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACO_HOME", str(settings.home))
    done = CliRunner().invoke(main, ["server", "run", "webserver"])
    assert done.exit_code == 2
    assert "CACO_DEPLOYMENT=local: servers are for `server` and `cluster`; `caco up`" in done.output


def test_the_address_of_the_code_server_has_a_port(server: pytest.MonkeyPatch) -> None:
    server.setenv("CACO_CODE_SERVER", "code")
    with pytest.raises(UserError, match="CACO_CODE_SERVER=code: is written host:port"):
        prepare("webserver", "0.0.0.0", None)
