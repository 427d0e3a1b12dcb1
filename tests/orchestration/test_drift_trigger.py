"""Checking a month's data without training on it, and training because it has drifted: when, and why not."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce
from caco_assets.orchestration.jobs import DATA_ONLY
from caco_assets.orchestration.schedules import drift_checks
from caco_assets.orchestration.sensors import drifted
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import note_finished
from caco_assets.settings import Settings, load_settings

DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)
FOUND = ("drift.bands.mean: 1 of 4 rows (B04)",)
Ask = Callable[[Settings], dg.RunRequest | dg.SkipReason]


@pytest.fixture
def instance(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def ask(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What the sensor answers in a workspace."""

    def asked(settings: Settings) -> dg.RunRequest | dg.SkipReason:
        monkeypatch.setattr(Profile, "settings", lambda _: settings)
        given = {"profile": Profile(name="tiny", home=str(settings.home))}
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            answer = drifted(context)
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    return asked


def verdict(
    settings: Settings, findings: tuple[str, ...] = FOUND, by: str | None = None, reference: str | None = "2026-10"
) -> None:
    """As `check_drift` leaves it after a check of 2026-11."""
    facts = {"vintage": "2026-11", "reference": reference, "accepted": not findings or by is not None, "findings": list(findings)}
    facts |= {"accepted_by": by, "reason": by and "snow came early", "rules": []}
    target, records = settings.paths.root / "data" / "drift.json", settings.paths.records
    given: dict[str, Any] = {"records": records, "recipe": "1", "inputs": facts}
    produce("drift", target, **given, make=lambda file: {**facts, "bytes": file.write_text("x")})


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "no vintage has been compared"),
        ({"reference": None, "findings": ()}, "no vintage has been compared"),
        ({"findings": ()}, "vintage 2026-11 is like 2026-10: every rule holds, no need to retrain"),
        ({}, r"has drifted from 2026-10: drift.bands.mean.*; .* caco drift --vintage 2026-11 --accept REASON"),
    ],
)
def test_without_drift_or_without_a_persons_word_nothing_is_trained(
    settings: Settings, ask: Ask, told: dict[str, Any] | None, why: str
) -> None:
    if told is not None:
        verdict(settings, **told)
    answer = ask(settings)
    assert isinstance(answer, dg.SkipReason)
    assert re.search(why, str(answer.skip_message))


def test_accepted_drift_is_trained_on_once(settings: Settings, ask: Ask, instance: dg.DagsterInstance) -> None:
    verdict(settings, by="ada")
    request = ask(settings)
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.job_name, request.tags["vintage"]) == ("drift-tiny-2026-11", "chain", "2026-11")
    assert request.run_config["resources"]["profile"]["config"]["vintage"] == "2026-11"
    assert set(instance.get_dynamic_partitions("shards")) == {"0000", "0001"}
    # as the daemon starts it; while it is on its way, and after it has failed
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    run = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert f"run {run.run_id} of vintage 2026-11 is started" in str(ask(settings))
    instance.report_run_failed(run)
    assert f"run {run.run_id} of vintage 2026-11, which has drifted, is failure: read its log" in str(ask(settings))


@dg.job
def chain() -> None:
    pass


def test_a_vintage_that_has_been_retrained_is_not_retrained_for_its_drift(settings: Settings, ask: Ask) -> None:
    verdict(settings, by="ada")
    note_finished(settings.model_copy(update={"vintage": "2026-11"}), "abc", "3", promoted=True)
    assert "by run abc: version 3" in str(ask(settings))


def test_always_asks_nobody_and_never_asks_for_nothing(tmp_path: Path, ask: Ask) -> None:
    def told(mode: str, severity: str = "warning") -> Settings:
        drift = {"drift": {"severity": severity}}
        return load_settings("tiny", home=tmp_path, automation={"retrain_on_drift": mode}, validation=drift)

    verdict(told("never"))
    assert "automation.retrain_on_drift is never: launch `retrain`" in str(ask(told("never")))
    assert isinstance(ask(told("always")), dg.RunRequest)
    # a run that is sure to be stopped by the same drift is no use
    with pytest.raises(UserError, match=r"retrain_on_drift=always: with validation\.drift\.severity=blocking"):
        told("always", "blocking")


# dagster asks its resources for fields by pydantic's old name
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute")
def test_the_data_only_job_makes_data_and_no_encoder(settings: Settings) -> None:
    from caco_assets.definitions import build_definitions

    job = build_definitions(settings, "tiny").resolve_job_def(DATA_ONLY.name)
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert made == {"locations", "catalog", "scenes", "archive", "quarantine"}
    assert "vintage_has_not_drifted" in {key.name for key in job.asset_layer.asset_graph.asset_check_keys}


def test_drift_checks_are_scheduled_where_the_profile_says_when(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert drift_checks(settings) == []
    weekly = load_settings("tiny", home=settings.home, automation={"drift_check_cron": "0 4 * * 1"})
    (schedule,) = drift_checks(weekly)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING

    def tick() -> Any:
        given = {"profile": Profile(name="tiny", home=str(settings.home))}
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=DECEMBER, resources=given) as context:
            return schedule(context)

    request = tick()
    assert (request.job_name, request.tags["vintage"]) == ("data_only", "2026-11")
    verdict(settings)
    assert "vintage 2026-11 has been checked: drift.bands.mean" in str(tick().skip_message)
