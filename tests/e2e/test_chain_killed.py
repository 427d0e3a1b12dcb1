"""One month's retraining by real processes, each stage of which is killed: it ends as one that nobody has disturbed.

A daemon, its runs and a tracking server die as by a power cut, at moments that the test can see: a file that appears, a row of the
server's database. What comes out is compared with a twin that was made stage after stage in a home of its own.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import PARENT_RUN_ID_TAG

from caco_assets.core.products import content_hash, recorded
from caco_assets.orchestration.run_requests import ACTIVE
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_moves import INTENT
from caco_assets.registry.registry_lock import is_lock
from caco_assets.registry.release.release import RELEASED
from caco_assets.registry.versions import GATE, IDENTITY, aliases, registered_tags, versions
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.mlflow.client import open_tracking, server_arguments
from caco_assets.resources.vintages import finished, finished_month
from caco_assets.settings import Settings, load_settings

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.kills,
    # minutes on a quiet machine; each process imports for ten seconds, on a busy one for a minute
    pytest.mark.timeout(3000),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

MODEL = "caco-killed"
LOCATION = """
from caco_assets.registry.promotion import decision

def weigh(*_):
    return [decision.Finding("beats random", True, "given", 0.1, 0.05, 0.15, 0.0)]

decision.weigh = weigh

from caco_assets.definitions import defs
"""
"""Every step is real but one comparison: a training that is better than none by so few images takes hours."""
RETRIES = 3
"""Of a run whose process has died; afterwards a user launches the vintage again."""
TWIN = """
import sys
from caco_assets.cli import main
for stage in sys.argv[1:]:
    try:
        main([stage])
    except SystemExit as ended:
        assert not ended.code, stage
"""
PATIENCE_S = 600.0


def until(there: Callable[[], Any], what: str, pause_s: float = 0.5) -> Any:
    """Wait for a condition, and give what it gives."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := there()):
        assert time.monotonic() < deadline, what
        time.sleep(pause_s)
    return found


class Site:
    """A workspace, its daemon and its tracking server; and ways to kill them."""

    def __init__(self, profile: Path, home: Path, vintage: str, serve: Callable[..., Any], database: Path) -> None:
        self.home, self.vintage = home, vintage
        self.settings = load_settings(str(profile), home=home, vintage=vintage)
        self.database, self._serve = database, serve
        self.server = serve(server_arguments(self.settings))
        self.dagster = dagster_home(self.settings)
        self.environment = {
            **os.environ,
            "CACO_HOME": str(home),
            "CACO_PROFILE": str(profile),
            "CACO_REGISTRY__TRACKING_URI": self.server.url,
            "DAGSTER_HOME": str(self.dagster),
            # one repetition of a request, at once
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        }
        self.location = home / "location.py"
        self.location.write_text(LOCATION)
        self.daemon: subprocess.Popen[bytes] | None = None

    # processes

    def start_daemon(self) -> None:
        with (self.home / "daemon.log").open("ab") as log:
            command = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(self.location)]
            self.daemon = subprocess.Popen(
                command, env=self.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )

    def kill_daemon(self) -> None:
        """The daemon alone: its code server and the run continue."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def cut_power(self) -> None:
        """The daemon, its code server and the run at once."""
        assert self.daemon is not None
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()

    def kill_run(self) -> None:
        os.kill(self.holder()["pid"], signal.SIGKILL)

    def kill_server(self) -> None:
        self.server.kill()

    def restart_server(self) -> None:
        port = int(self.server.url.rpartition(":")[2])
        self.server = self._serve(server_arguments(self.settings), port=port)

    def ask(self, *words: str) -> None:
        """What an operator types."""
        command = [str(Path(sys.executable).with_name("dagster")), *words, "-f", str(self.location)]
        subprocess.run(command, env=self.environment, cwd=self.home, check=True, capture_output=True)

    # what can be seen from outside

    def holder(self) -> dict[str, Any]:
        return json.loads((self.settings.paths.root / "turn.json").read_text())

    def runs(self, job: str = "chain") -> list[dg.DagsterRun]:
        """Oldest first."""
        with dg.DagsterInstance.from_config(str(self.dagster)) as instance:
            return list(instance.get_runs(filters=dg.RunsFilter(job_name=job)))[::-1]

    def steps(self, run_id: str, kind: dg.DagsterEventType) -> list[str]:
        with dg.DagsterInstance.from_config(str(self.dagster)) as instance:
            found = instance.all_logs(run_id, of_type=kind)
            return [entry.step_key or "" for entry in found]

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the tracking server's database, which answers also while the server is down."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def artifacts(self, pattern: str) -> list[Path]:
        return list((self.settings.paths.workspace / "mlflow" / "artifacts").rglob(pattern))


def killed(site: Site, attempt: int, step: str, there: Callable[[], Any], kill: Callable[[], None]) -> None:
    """Wait for the attempt, kill in the middle of its step, and see that it was there."""
    holder = until(lambda: _holder_of(site, attempt), f"attempt {attempt} has not begun")
    # a stage of this size takes a tenth of a second: nothing but the file is looked at
    until(there, f"attempt {attempt} has not come to {step}", pause_s=0.002)
    kill()
    assert site.holder()["run_id"] == holder, f"attempt {attempt} ended before it was killed"
    assert site.steps(holder, dg.DagsterEventType.STEP_START)[-1] == step
    assert step not in site.steps(holder, dg.DagsterEventType.STEP_SUCCESS)


def _holder_of(site: Site, attempt: int) -> str | None:
    """Id of the run of an attempt once it works in the workspace."""
    known = [run.run_id for run in site.runs()]
    if len(known) < attempt or not (site.settings.paths.root / "turn.json").exists():
        return None
    return known[attempt - 1] if site.holder()["run_id"] == known[attempt - 1] else None


@pytest.fixture
def now() -> tuple[str, str]:
    """The vintage of the month that is over, and a time zone in which that month does not end while the test runs."""
    today = datetime.now(UTC)
    zone = "UTC" if (today + timedelta(hours=2)).month == today.month else "Etc/GMT-14"
    return finished_month(today if zone == "UTC" else today + timedelta(hours=14)), zone


@pytest.fixture
def profile(tmp_path: Path, now: tuple[str, str]) -> Path:
    package = Path(__file__).parents[2] / "caco_assets"
    values = yaml.safe_load((package / "profiles" / "tiny.yaml").read_text())
    values["sampling"]["places_per_shard"] = 3
    values["imagery"]["source"]["calendar"] = values["vintage"] = now[0]
    values["pretraining"] |= {"warm_start": "champion", "threads": 1, "epochs": 12}
    values["downstream"] |= {"tasks": {"eurosat_twin": {"task": "eurosat", "protocols": ["clean"]}}, "baselines": ["random"]}
    values["registry"]["model"] = MODEL
    values["automation"] = {"cron": "* * * * *", "timezone": now[1]}
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "killed.yaml"


@pytest.fixture
def site(
    profile: Path, now: tuple[str, str], tmp_path: Path, serve_mlflow: Callable[..., Any], migrated_mlflow: Path
) -> Iterator[Site]:
    home = tmp_path / "home"
    database = home / "workspace" / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(migrated_mlflow.read_bytes())
    ensure_home(load_settings(str(profile), home=home))
    # a busy machine is slow, and so short a training learns little
    policy = home / "mlflow" / "promotion.yaml"
    rules = yaml.safe_load(policy.read_text())
    rules["not_collapsed"] = {"min_effective_rank": 1.0, "min_spread": 0.0}
    rules["latency"] = {"max_ms": 10_000, "max_ratio": 100}
    policy.write_text(yaml.safe_dump(rules))
    config = dagster_home(load_settings(str(profile), home=home)) / "dagster.yaml"
    hasty = config.read_text()
    for slow, quick in (
        ("poll_interval_seconds: 30", "poll_interval_seconds: 1"),
        ("free_slots_after_run_end_seconds: 60", "free_slots_after_run_end_seconds: 1"),
        ("max_retries: 2", f"max_retries: {RETRIES}"),
    ):
        assert slow in hasty
        hasty = hasty.replace(slow, quick)
    config.write_text(hasty)
    made = Site(profile, home, now[0], serve_mlflow, database)
    made.start_daemon()
    try:
        yield made
    finally:
        made.cut_power()


@pytest.fixture
def twin(profile: Path, tmp_path: Path, migrated_mlflow: Path) -> Iterator[Callable[[], Settings]]:
    """The same month, stage after stage, undisturbed, in the background: called, it waits for the end."""
    home = tmp_path / "twin"
    settings = load_settings(str(profile), home=home)
    database = settings.paths.workspace / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(migrated_mlflow.read_bytes())
    stages = ["sample", "plan", "ingest", "pack", "parent", "pretrain"]
    environment = {**os.environ, "CACO_HOME": str(home), "CACO_PROFILE": str(profile)}
    with (tmp_path / "twin.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", TWIN, *stages], env=environment, cwd=home, stdout=log, stderr=log)

    def made() -> Settings:
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "twin.log").read_text()
        return settings

    yield made
    process.kill()
    process.wait()


def test_a_retraining_killed_at_each_stage_ends_as_an_undisturbed_one(site: Site, twin: Callable[[], Settings]) -> None:
    paths = site.settings.paths
    site.ask("schedule", "start", "monthly_retraining")

    killed(site, 1, "archive", lambda: (paths.archive / "shard=0000").exists(), site.kill_run)
    assert not (paths.archive / "shard=0003").exists()
    site.ask("schedule", "stop", "monthly_retraining")
    killed(site, 2, "pack", lambda: list(paths.pack.parent.glob(".pack.partial-*")), site.cut_power)
    assert not paths.pack.exists()
    site.start_daemon()
    killed(site, 3, "encoder", lambda: list(paths.root.glob(".encoder.partial-*/checkpoint.pt")), site.kill_run)
    (checkpoint,) = paths.root.glob(".encoder.partial-*/checkpoint.pt")

    # training continues unsupervised, and its metrics have nowhere to go
    holder = until(lambda: _holder_of(site, 4), "attempt 4 has not begun")
    until(lambda: "encoder" in site.steps(holder, dg.DagsterEventType.STEP_START), "attempt 4 has not come to encoder")
    before = checkpoint.stat().st_mtime_ns
    until(lambda: not checkpoint.exists() or checkpoint.stat().st_mtime_ns > before, "training does not go on", pause_s=0.01)
    site.kill_server()
    site.kill_daemon()
    site.start_daemon()
    site.restart_server()
    killed(site, 4, "scores", lambda: list((paths.root / "score_items").glob("*.parquet")), site.kill_run)
    until(lambda: not [run for run in site.runs() if run.status in ACTIVE], "attempt 4 is not known to be dead")

    # the retries are used up: a user launches the vintage again
    site.ask("job", "launch", "-j", "retrain")
    until(lambda: site.artifacts("encoder.safetensors"), "registration has not begun", pause_s=0.005)
    site.kill_server()
    assert site.asked("select count(*) from model_versions") == [(0,)]
    site.restart_server()
    version = "select 1 from model_versions"
    killed(site, 5, "challenger", lambda: site.asked(version), site.cut_power)
    site.start_daemon()
    champion = "select 1 from registered_model_aliases where alias = 'champion'"
    killed(site, 6, "champion", lambda: site.asked(champion), site.kill_run)
    assert finished(site.settings) == {}
    last = until(lambda: [run for run in site.runs()[6:] if run.is_finished], "the last attempt does not end")
    assert last[-1].status == dg.DagsterRunStatus.SUCCESS

    _none_lost_none_doubled(site)
    _nothing_is_held(site)
    _registry_is_whole(site)
    _nothing_is_left_over(site)
    _as_undisturbed(site.settings, twin())
    subprocess.run(
        [sys.executable, "-m", "caco_assets.cli", "vintages", "--check"], env=site.environment, cwd=site.home, check=True
    )


def _none_lost_none_doubled(site: Site) -> None:
    runs = site.runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.FAILURE] * 6 + [dg.DagsterRunStatus.SUCCESS]
    parents = [run.tags.get(PARENT_RUN_ID_TAG) for run in runs]
    # the schedule's with its three retries, the form's with two
    assert [parent is None for parent in parents] == [True, False, False, False, True, False, False]
    done = finished(site.settings)
    assert list(done) == [site.vintage]
    assert (done[site.vintage].version, done[site.vintage].promoted) == ("1", True)


def _nothing_is_held(site: Site) -> None:
    with dg.DagsterInstance.from_config(str(site.dagster)) as instance:
        storage = instance.event_log_storage
        held = {key: storage.get_concurrency_info(key) for key in storage.get_concurrency_keys()}
    assert {key: (info.active_slot_count, info.pending_step_count) for key, info in held.items()} == dict.fromkeys(held, (0, 0))
    assert "gpu" in held


def _registry_is_whole(site: Site) -> None:
    tracking = open_tracking(_told(site))
    (version,) = versions(tracking, MODEL)
    assert aliases(tracking, MODEL) == {"challenger": "1", "champion": "1"}
    assert version.tags[GATE] == "passed"
    assert RELEASED in version.tags
    assert version.tags[IDENTITY] == Encoder.load(site.settings.paths.encoder).identity
    assert INTENT not in registered_tags(tracking, MODEL)
    assert [model.name for model in tracking.client.search_registered_models() if is_lock(model.name)] == []
    logged = tracking.client.search_runs([tracking.experiment_id])
    assert {run.info.status for run in logged} == {"FINISHED"}, [(r.data.tags["room"], r.info.status) for r in logged]
    (training,) = [run for run in logged if run.data.tags["room"] == "pretraining"]
    assert version.run_id == training.info.run_id
    points = tracking.client.get_metric_history(training.info.run_id, "loss")
    steps = recorded(site.settings.paths.records, "encoder").facts["steps"]
    assert sorted(point.step for point in points) == list(range(1, steps + 1))
    (scored,) = [run for run in logged if run.data.tags["room"] == "downstream"]
    assert scored.data.metrics


def _told(site: Site) -> Settings:
    registry = site.settings.registry.model_copy(update={"tracking_uri": site.server.url})
    return site.settings.model_copy(update={"registry": registry})


def _nothing_is_left_over(site: Site) -> None:
    hidden = list(site.settings.paths.root.rglob(".*"))
    assert hidden == []
    assert list((site.dagster / "life").iterdir()) == []


def _as_undisturbed(killed: Settings, whole: Settings) -> None:
    for made in ("locations", "scenes", "archive", "pack"):
        ours, theirs = (content_hash(getattr(each.paths, made)) for each in (killed, whole))
        assert ours == theirs, made
    ours, theirs = (Encoder.load(each.paths.encoder).identity for each in (killed, whole))
    assert ours == theirs
