"""One retraining per vintage: the schedule, what a tick does when there is nothing to do or months were missed, the form."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.orchestration.jobs import note_vintage
from caco_assets.orchestration.retrain_form import Retraining, check_request, requested_vintage, retrain
from caco_assets.orchestration.schedules import monthly_retraining
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished, finished_month, missed, months_between, note_finished
from caco_assets.settings import Settings

DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def profile(settings: Settings) -> Profile:
    return Profile(name="tiny", home=str(settings.home))


def tick(settings: Settings, profile: Profile, instance: dg.DagsterInstance, when: datetime = DECEMBER) -> Any:
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=when, resources={"profile": profile}) as context:
        return monthly_retraining(settings)(context)


# dagster asks its resources for fields by pydantic's old name
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute")
def test_an_imported_set_has_no_scenes_to_choose_and_its_graph_still_loads() -> None:
    from caco_assets.definitions import build_definitions
    from caco_assets.settings import load_settings

    graph = build_definitions(load_settings("seco"), "seco")
    dg.Definitions.validate_loadable(graph)
    made = graph.resolve_asset_graph().executable_asset_keys
    names = {key.to_user_string() for key in made}
    assert {"locations", "archive", "quarantine", "pack", "encoder"} <= names
    assert not {"catalog", "scenes"} & names
    assert "archive" in {key.to_user_string() for key in graph.resolve_job_def("chain").asset_layer.executable_asset_keys}
    # two steps that would use the same GPU take turns, whichever runs they belong to
    pools = {node.name: node.definition.pool for node in graph.resolve_job_def("chain").nodes}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {"encoder", "scores", "champion"}
    assert [node.definition.pool for node in graph.resolve_job_def("judge_challenger").nodes] == ["gpu"]


@pytest.mark.parametrize(("moment", "month"), [("2026-11-01", "2026-10"), ("2026-01-31", "2025-12"), ("2024-03-30", "2024-02")])
def test_the_vintage_is_the_month_that_is_over(moment: str, month: str) -> None:
    assert finished_month(datetime.fromisoformat(moment)) == month


def test_a_tick_asks_for_one_run_of_the_next_vintage_over_all_shards(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    request = tick(settings, profile, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "tiny-2026-11"
    assert request.run_config["resources"]["profile"]["config"]["vintage"] == "2026-11"
    assert set(instance.get_dynamic_partitions("shards")) == {"0000", "0001"}
    assert request.tags["dagster/asset_partition_range_end"] == "0001"
    assert "superseded" not in request.tags


def test_a_vintage_that_is_done_or_on_its_way_is_not_begun_again(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    tags = {"vintage": "2026-11", "profile": "tiny"}
    instance.create_run_for_job(judged, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert isinstance(tick(settings, profile, instance), dg.RunRequest)  # a run of another job
    run = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED, tags=tags)
    reason = tick(settings, profile, instance)
    assert isinstance(reason, dg.SkipReason)
    assert f"run {run.run_id} of vintage 2026-11 is started" in str(reason.skip_message)
    instance.report_run_failed(run)
    assert isinstance(tick(settings, profile, instance), dg.RunRequest)
    # also by another scheduler on the same workspace, which has another instance
    note_finished(settings.model_copy(update={"vintage": "2026-11"}), "abc", "3", promoted=True)
    reason = tick(settings, profile, instance)
    assert "vintage 2026-11 was retrained at " in str(reason.skip_message)
    assert "by run abc: version 3" in str(reason.skip_message)


@dg.job
def judged() -> None:
    pass


@dg.job
def chain() -> None:
    pass


def test_after_months_without_a_scheduler_the_last_is_made_and_names_the_others(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    note_finished(settings.model_copy(update={"vintage": "2026-08"}), "abc", "1", promoted=True)
    assert missed(settings, "2026-11") == ["2026-09", "2026-10"]
    request = tick(settings, profile, instance)
    assert (request.run_key, request.tags["superseded"]) == ("tiny-2026-11", "2026-09,2026-10")


def test_each_missed_month_is_made_in_turn_where_that_is_wanted(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    each = settings.model_copy(update={"automation": settings.automation.model_copy(update={"missed": "each"})})
    note_finished(settings.model_copy(update={"vintage": "2026-08"}), "abc", "1", promoted=True)
    requests = tick(each, profile, instance)
    assert [request.tags["vintage"] for request in requests] == ["2026-09", "2026-10", "2026-11"]
    assert len({request.run_key for request in requests}) == 3


def test_months_go_over_the_end_of_a_year() -> None:
    assert months_between("2025-11", "2026-02") == ["2025-11", "2025-12", "2026-01"]
    assert months_between("2026-02", "2026-02") == []


def test_a_note_that_cannot_be_read_is_named(settings: Settings) -> None:
    note_finished(settings, "abc", "1", promoted=False)
    assert [entry.promoted for entry in finished(settings).values()] == [False]
    (settings.paths.root / "vintages" / "2026-10.json").write_text("{")
    with pytest.raises(UserError, match="delete it, its vintage is then due again"):
        finished(settings)


def test_a_vintage_counts_as_retrained_once_the_policy_has_decided(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def challenger() -> None: ...

    @dg.asset(deps=[challenger])
    def champion() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"version": "7", "passed": True})

    def definitions(failing: bool) -> dg.Definitions:
        @dg.asset(deps=[challenger], name="champion")
        def broken() -> None:
            raise RuntimeError("the server is down")

        assets = [challenger, broken if failing else champion]
        job = dg.define_asset_job("chain", hooks={note_vintage})
        return dg.Definitions(assets=assets, jobs=[job], resources={"profile": profile}, executor=dg.in_process_executor)

    definitions(failing=True).resolve_job_def("chain").execute_in_process(instance=instance, raise_on_error=False)
    assert finished(settings) == {}
    result = definitions(failing=False).resolve_job_def("chain").execute_in_process(instance=instance)
    assert result.success
    (entry,) = finished(settings).values()
    assert (entry.vintage, entry.version, entry.promoted, entry.run_id) == ("2026-10", "7", True, result.run_id)


def requested_by(result: dg.ExecuteInProcessResult, profile: Profile, instance: dg.DagsterInstance) -> dg.RunRequest:
    """What the sensor asks for after a form."""
    context = dg.build_run_status_sensor_context(
        sensor_name="requested_vintage",
        dagster_event=next(event for event in result.all_events if event.event_type == dg.DagsterEventType.RUN_SUCCESS),
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id) or result.dagster_run,
        resources={"profile": profile},
    )
    request = requested_vintage(context)
    assert isinstance(request, dg.RunRequest)
    return request


def test_an_empty_vintage_is_the_month_that_was_over_when_the_form_was_sent(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return today

    monkeypatch.setattr("caco_assets.orchestration.retrain_form.datetime", Clock)
    today = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)
    result = retrain.execute_in_process(instance=instance, resources={"profile": profile})
    today = datetime(2026, 12, 1, 0, 0, 5, tzinfo=UTC)
    assert requested_by(result, profile, instance).tags["vintage"] == "2026-10"


def test_the_form_is_checked_in_seconds_and_the_run_that_follows_is_what_it_says(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance
) -> None:
    form = {"vintage": "2025-03", "warm_start": "champion", "epochs": 5}
    config = {"ops": {"check_request": {"config": form}}}
    result = retrain.execute_in_process(run_config=config, instance=instance, resources={"profile": profile})
    assert result.output_for_node("check_request") == "2025-03"
    request = requested_by(result, profile, instance)
    told = request.run_config["resources"]["profile"]["config"]
    assert {name: told[name] for name in ("vintage", "warm_start", "epochs", "force")} == {**form, "force": False}
    made = Profile(**told).settings()
    assert (made.vintage, made.pretraining.warm_start, made.pretraining.epochs) == ("2025-03", "champion", 5)
    assert request.run_key == f"form-{result.run_id}"


@pytest.mark.parametrize("name", ["data_only", "only_look"])
def test_a_form_may_request_data_only(settings: Settings, profile: Profile, instance: dg.DagsterInstance, name: str) -> None:
    config = {"ops": {"check_request": {"config": {"vintage": "2025-03", name: True}}}}
    result = retrain.execute_in_process(run_config=config, instance=instance, resources={"profile": profile})
    request = requested_by(result, profile, instance)
    assert (request.job_name, request.tags["vintage"]) == ("data_only", "2025-03")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"vintage": "2999-01"}, "that month is not over"),
        ({"vintage": "2026-13"}, "vintage='2026-13'"),
        ({"vintage": "2025-03"}, "vintage 2025-03 was retrained at .* by run abc: version 1; set force"),
    ],
)
def test_a_form_that_cannot_be_served_says_why(
    settings: Settings, profile: Profile, instance: dg.DagsterInstance, form: dict[str, Any], says: str
) -> None:
    note_finished(settings.model_copy(update={"vintage": "2025-03"}), "abc", "1", promoted=True)
    with (
        dg.build_op_context(instance=instance, resources={"profile": profile}) as context,
        pytest.raises(UserError, match=says),
    ):
        check_request(context, Retraining(**form))


def test_the_vintage_of_a_run_overrules_the_profiles_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(name="tiny", home=str(settings.home), vintage="2025-01", warm_start="champion", epochs=3)
    assert (profile.settings().vintage, profile.settings().pretraining.epochs) == ("2025-01", 3)
    # and is never overruled in silence
    monkeypatch.setenv("CACO_VINTAGE", "2026-01")
    with pytest.raises(UserError, match="vintage=2025-01: the environment of the run has CACO_VINTAGE=2026-01; unset it there"):
        profile.settings()


def test_selection_strings_parse() -> None:
    # an antlr4 runtime of another version makes every selection string raise
    assert dg.AssetSelection.from_string("pack+") is not None
