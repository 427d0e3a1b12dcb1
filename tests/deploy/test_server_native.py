"""A team's server for real: PostgreSQL, an object store, MLflow with logins, Dagster's three processes, and a door with TLS."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from caco_assets.registry.aliases.user import current_user

pytestmark = [pytest.mark.deploy, pytest.mark.slow, pytest.mark.timeout(3000)]

LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
EVENTS = """query Events($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  __typename ... on MessageEvent { message stepKey } } } ... on PythonError { message } } }"""
TAGS = """query Tags($run: ID!) { runOrError(runId: $run) { ... on Run { tags { key value } runConfigYaml } } }"""
VINTAGE = "2026-10"
SECRETS = ("postgres_password", "store_secret_key", "mlflow_password", "mlflow_secret_key", "mlflow_webhook_key", "login_password")
QUICK = {
    "CACO_PRETRAINING__EPOCHS": "1",
    "CACO_DOWNSTREAM__BASELINES": '["random"]',
    "CACO_DOWNSTREAM__TASKS": '{"eurosat_twin": {"task": "eurosat", "protocols": ["clean"]}}',
}
"""Settings are variables: the smallest profile, smaller still."""
EASY = {
    "main": [{"row": "eurosat_twin", "protocol": "clean", "method": "linear_probe", "size": 64, "margin": 0.0}],
    "not_collapsed": {"min_effective_rank": 1.0, "min_spread": 0.0},
    "draws": 1000,
    "latency": {"rounds": 5, "images": 1},
    "override": {"allowed": [current_user()], "rules": ["main", "baseline"]},
}
"""An encoder of one epoch may not beat random weights surely enough: then a user promotes it, which the policy allows."""


def launch(team: Any) -> None:
    """Ask for one retraining, as the form in the UI does; the daemon's sensor starts the chain."""
    selector = {"repositoryLocationName": "caco", "repositoryName": "__repository__", "jobName": "retrain"}
    form = {"ops": {"check_request": {"config": {"vintage": VINTAGE, "force": True}}}}
    said = team.graphql(LAUNCH, params={"selector": selector, "runConfigData": form, "mode": "default"})["launchRun"]
    assert said["__typename"] == "LaunchRunSuccess", said


def steps(team: Any, run: str) -> set[str]:
    """Steps of a run that are done."""
    events = team.graphql(EVENTS, run=run)["logsForRun"]["events"]
    return {event["stepKey"] for event in events if event["__typename"] == "ExecutionStepSuccessEvent"}


def version(team: Any, alias: str) -> dict[str, Any] | None:
    """The version that an alias names, as MLflow tells one who has logged in; None: it names none."""
    address = f"https://localhost:{team.ports['tracking']}/api/2.0/mlflow/registered-models/alias?name=caco-tiny&alias={alias}"
    code, said = team.ask(address, f"caco:{team.secret('mlflow_password')}")
    assert code in (200, 400, 404), said
    if code != 200:
        return None
    found = json.loads(said)["model_version"]
    return found | {"tags": {tag["key"]: tag["value"] for tag in found["tags"]}}


def packs(home: Path) -> list[bytes]:
    """What training reads, in a home."""
    return [path.read_bytes() for path in sorted((home / "workspace" / "tiny" / "data" / "pack").glob("*.npy"))]


def test_a_backup_comes_back_in_empty_stores_and_never_over_full_ones(new_team: Callable[..., Any], tmp_path: Path) -> None:
    """The small twin: databases, objects and files of the home alone, no run."""
    team, copy = new_team(), tmp_path / "backup"
    team.start_stores()
    team.caco("server", "migrate")
    assert "made" not in team.caco("server", "migrate")
    assert team.caco("server", "exec", "psql", "-At", "-d", "mlflow_auth", "-c", "SELECT 6 * 7") == "42\n"
    (team.home / "dvc.lock").write_text("stages: {}\n")
    thing = tmp_path / "things" / "caco" / "dvc" / "files" / "md5" / "ab" / "cdef"
    thing.parent.mkdir(parents=True)
    thing.write_bytes(b"data" * 1000)
    team.caco("server", "load-objects", str(tmp_path / "things"))
    team.backup(copy)
    assert "0 copied" in team.caco("server", "save-objects", str(copy / "objects"))
    refused = team.by_hand("restore", copy)
    assert refused.returncode == 1
    assert "the database dagster already exists" in refused.stderr
    team.stop_all()
    other = new_team(secrets=team.secrets)
    other.start_stores()
    other.restore(copy)
    assert (other.home / "dvc.lock").read_text() == "stages: {}\n"
    other.caco("server", "save-objects", str(tmp_path / "back"))
    assert (tmp_path / "back" / thing.relative_to(tmp_path / "things")).read_bytes() == thing.read_bytes()


def test_a_restart_of_the_database_does_not_fail_the_next_request_to_dagster(new_team: Callable[..., Any]) -> None:
    """The web server keeps a connection to each of its storages open."""
    team = new_team()
    team.start_stores()
    team.caco("server", "migrate")
    # what it knows without a code server is in the database
    for name in ("webserver", "proxy"):
        team.start(name)
    team.until(lambda: team.healthy("webserver"), "webserver")
    runs = "query Q { runsOrError { ... on Runs { results { runId } } } }"
    assert team.graphql(runs) == {"runsOrError": {"results": []}}
    team.stop("postgres", signal.SIGINT)
    time.sleep(2)
    team.start_stores()
    assert team.graphql(runs) == {"runsOrError": {"results": []}}


def test_the_team_trains_a_champion_while_its_stores_restart_and_a_backup_brings_all_of_it_back(
    new_team: Callable[..., Any], tmp_path: Path
) -> None:
    team = new_team(more=QUICK)
    team.start_stores()
    (team.home / "mlflow").mkdir()
    (team.home / "mlflow" / "promotion.yaml").write_text(yaml.safe_dump(EASY))
    team.start_services()
    dagster, tracking = (f"https://localhost:{team.ports[name]}" for name in ("dagster", "tracking"))

    # nobody gets in without a login
    question = b'{"query": "{ version }"}'
    for login in (None, "team:guessed"):
        assert team.ask(f"{dagster}/graphql", login, question)[0] == 401
        assert team.ask(f"{dagster}/", login)[0] == 401
        assert team.ask(f"{tracking}/api/2.0/mlflow/experiments/search", login, b'{"max_results": 1}')[0] == 401
        assert team.ask(f"{tracking}/", login)[0] == 401

    # a job over GraphQL; both stores go away in the middle of it
    launch(team)
    team.until(lambda: bool(team.runs("chain")), "the sensor starts the chain")
    first = team.runs("chain")[0]["runId"]
    team.until(lambda: "archive" in steps(team, first), "the archive is made")
    team.stop("postgres", signal.SIGINT)
    team.stop("store", signal.SIGKILL)
    time.sleep(3)
    team.start_stores()
    team.until(lambda: any(run["status"] == "SUCCESS" for run in team.runs("chain")), "the chain ends well", 1200)
    done = next(run["runId"] for run in team.runs("chain") if run["status"] == "SUCCESS")
    if version(team, "champion") is None:
        team.caco("promote", "--override", "--reason", "one epoch learns little")
    champion = version(team, "champion")
    assert champion
    assert champion["status"] == "READY"
    assert champion["tags"]["gate"] in ("passed", "overridden")

    page = f"{dagster}/pages/tiny/report/report.html"
    assert team.ask(page)[0] == 401
    assert team.ask(page, f"team:{team.secret('login_password')}")[0] == 200
    for outside in ("/pages/tiny/records/pack.json", "/pages/tiny/report/../records/pack.json"):
        assert b"content_hash" not in team.ask(dagster + outside, f"team:{team.secret('login_password')}")[1]

    # the chips are in the store alone
    assert list((team.folder / "store").rglob("archive/tiny/shard=*/*.tar*"))
    assert list(team.home.rglob("archive/shard=*/chips.tar.json"))
    assert not list(team.home.rglob("chips.tar"))

    # no secret is in a log, in the home, in the store, or in what Dagster and MLflow know of the run and its version
    told = str(team.graphql(TAGS, run=done)) + str(team.graphql(EVENTS, run=done)) + str(champion)
    for name in SECRETS:
        assert team.secret(name) not in told
        looked = ["grep", "-rlaF", team.secret(name), str(team.folder), "--exclude-dir=secrets", "--exclude-dir=postgres"]
        assert subprocess.run(looked, capture_output=True, text=True, check=False).stdout == "", name

    # a backup into empty servers brings back runs, versions and data
    copy = tmp_path / "backup"
    team.backup(copy)
    known, mine = team.runs("chain"), packs(team.home)
    assert mine
    team.stop_all()
    other = new_team(secrets=team.secrets, more=QUICK)
    other.start_stores()
    other.restore(copy)
    other.start_services()
    assert other.runs("chain") == known
    assert version(other, "champion") == champion
    assert packs(other.home) == []
    other.caco("restore", "models:/caco-tiny@champion", "--out", str(other.folder / "restored"))
    assert packs(other.folder / "restored") == mine
