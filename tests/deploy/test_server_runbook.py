"""Commands of `deploy/README.md` that are run by hand: more users, new secrets, an upgrade; on the server's parts as processes."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caco_assets.services.server_processes import SERVICES

pytestmark = [pytest.mark.deploy, pytest.mark.slow, pytest.mark.timeout(1800)]

MAKE_SECRETS = Path(__file__).parents[2] / "deploy" / "server" / "make-secrets"
EARLIER = ("mlflow==3.4.0", "dagster==1.9.13", "dagster-postgres==0.25.13", "sqlalchemy<2.1", "psycopg2-binary", "setuptools<80")
"""As a server of a year ago has them."""
# what such a server has: a run of Dagster and an experiment of MLflow
FILL = """
import dagster, mlflow
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
with dagster.DagsterInstance.get() as instance:
    instance.add_run(dagster.DagsterRun(job_name="chain", run_id="0" * 31 + "1", status=dagster.DagsterRunStatus.SUCCESS))
SqlAlchemyStore("postgresql+psycopg2:///mlflow", "s3://caco/mlflow").create_experiment("a year ago")
print(dagster.__version__, mlflow.__version__)
"""
DAGSTER_YAML = "storage: {postgres: {postgres_url: 'postgresql+psycopg2:///dagster'}}\ntelemetry: {enabled: false}\n"


def users(team: Any, login: str, path: str, **body: str) -> int:
    """Status of a request about MLflow's users."""
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    url = f"https://localhost:{team.ports['tracking']}/api/2.0/mlflow/users/{path}"
    method = "PATCH" if path.startswith("update") else "POST"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    trusted = ssl.create_default_context(cafile=str(team.secrets / "tls_certificate"))
    try:
        with urllib.request.urlopen(request, timeout=60, context=trusted) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def searches(team: Any, login: str) -> int:
    """Status of a look at MLflow's experiments."""
    address = f"https://localhost:{team.ports['tracking']}/api/2.0/mlflow/experiments/search"
    return team.ask(address, login, b'{"max_results": 1}')[0]


def again(team: Any, *names: str) -> None:
    """As `up -d --force-recreate`."""
    for name in names:
        team.stop(name)
        team.start(name)
    for name in names:
        if name in SERVICES:
            team.until(lambda name=name: team.healthy(name), name)
    time.sleep(2)


def test_users_are_added_and_secrets_rotated(new_team: Callable[..., Any]) -> None:
    team = new_team()
    team.start_stores()
    team.caco("server", "migrate")
    for name in ("mlflow", "proxy"):
        team.start(name)
    team.until(lambda: team.healthy("mlflow"), "mlflow")
    old = team.secret("mlflow_password")

    # another user of MLflow
    assert users(team, "ada:guessed", "create", username="ada", password="twelve letters") == 401
    assert users(team, f"caco:{old}", "create", username="ada", password="twelve letters") == 200
    assert searches(team, "ada:twelve letters") == 200
    # another user of Dagster: the door opens (there is no web server behind it)
    page = f"https://localhost:{team.ports['dagster']}/"
    assert team.ask(page, "ada:another one")[0] == 401
    mark = subprocess.run(["openssl", "passwd", "-6", "another one"], capture_output=True, text=True, check=True).stdout
    file = team.secrets / "login_users"
    file.chmod(0o644)
    with file.open("a") as passwords:
        passwords.write(f"ada:{mark}")
    again(team, "proxy")
    assert team.ask(page, "ada:another one")[0] == 502
    assert team.ask(page, f"team:{team.secret('login_password')}")[0] == 502

    # a new password of the chain's own account at MLflow
    assert users(team, f"caco:{old}", "update-password", username="caco", password="a longer password") == 400
    change = {"username": "caco", "current_password": old, "password": "a longer password"}
    assert users(team, f"caco:{old}", "update-password", **change) == 200
    assert searches(team, f"caco:{old}") == 401
    assert searches(team, "caco:a longer password") == 200

    # a new password of PostgreSQL; `make-secrets` makes what is missing, and nothing else
    before = {path.name: path.read_text() for path in team.secrets.iterdir() if path.name != "postgres_password"}
    (team.secrets / "postgres_password").rename(team.folder / "old_password")
    subprocess.run([str(MAKE_SECRETS), str(team.secrets)], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in team.secrets.iterdir() if path.name != "postgres_password"} == before
    change = f"ALTER USER caco PASSWORD '{team.secret('postgres_password')}'"
    environ = {**team.environment("tools"), "PGPASSWORD": (team.folder / "old_password").read_text().strip()}
    subprocess.run(["psql", "-d", "postgres", "-c", change], env=environ, check=True, capture_output=True)
    again(team, "mlflow")
    assert searches(team, "ada:twelve letters") == 200


def test_databases_of_a_year_ago_are_migrated_and_keep_their_content(new_team: Callable[..., Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(tmp_path / "site"), *EARLIER]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        pytest.skip(f"{', '.join(EARLIER[:3])} could not be fetched: {done.stderr[-200:]}")
    team = new_team()
    team.start_stores()
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    environ = {**team.environment("tools"), "PGPASSWORD": team.secret("postgres_password"), "DAGSTER_HOME": str(home)}
    environ |= {"PYTHONPATH": str(tmp_path / "site"), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}

    def asked(database: str, query: str) -> str:
        line = ["psql", "-At", "-d", database, "-c", query]
        return subprocess.run(line, env=environ, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("dagster", "mlflow", "mlflow_auth"):
        asked("postgres", f"CREATE DATABASE {name}")
    filled = subprocess.run([sys.executable, "-W", "ignore", "-c", FILL], env=environ, capture_output=True, text=True, check=False)
    assert filled.stdout.split()[-2:] == ["1.9.13", "3.4.0"], filled.stderr[-2000:]
    version = "SELECT version_num FROM alembic_version"
    before = {name: asked(name, version) for name in ("dagster", "mlflow")}

    said = team.caco("server", "migrate")
    assert "dagster is up to date" in said
    assert "mlflow is up to date" in said
    after = {name: asked(name, version) for name in ("dagster", "mlflow")}
    assert after["mlflow"] != before["mlflow"]
    assert "made" not in team.caco("server", "migrate")
    assert {name: asked(name, version) for name in after} == after
    team.start("mlflow")
    team.start("webserver")
    team.start("proxy")
    for name in ("mlflow", "webserver"):
        team.until(lambda name=name: team.healthy(name), name)
    address = f"https://localhost:{team.ports['tracking']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%20year%20ago"
    assert team.ask(address, f"caco:{team.secret('mlflow_password')}")[0] == 200
    assert [run["status"] for run in team.runs("chain")] == ["SUCCESS"]
