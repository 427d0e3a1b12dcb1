"""A blocking check that fails in `caco demo`: one line, and a run that nobody launches again."""

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.orchestration.in_process import IN_PROCESS, materialize
from caco_assets.resources.dagster.instance import dagster_home, open_instance
from caco_assets.resources.dagster.tags import MAX_RETRIES
from caco_assets.settings import Settings


@dg.asset
def product() -> None:
    pass


@dg.asset(deps=[product])
def downstream() -> None:
    raise AssertionError("made from a product that a check has blocked")


@dg.asset_check(asset=product, blocking=True)
def is_sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="3 rows are wrong:\n  L1\n  L2\n  L3")


@dg.asset_check(asset=product)
def is_pretty() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="not pretty")


@dg.multi_asset_check(specs=[dg.AssetCheckSpec("is_whole", asset="product", blocking=True)])
def several():
    yield dg.AssetCheckResult(passed=False, check_name="is_whole", asset_key=dg.AssetKey("product"), description="half of it")


def job(*checks: dg.AssetChecksDefinition) -> dg.JobDefinition:
    definitions = dg.Definitions(
        assets=[product, downstream],
        asset_checks=[is_pretty, *checks],
        jobs=[dg.define_asset_job("chain")],
        executor=dg.in_process_executor,
    )
    return definitions.resolve_job_def("chain")


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (is_sound, "check is_sound of product: 3 rows are wrong: L1 L2 L3; `make up` shows its table in the Dagster UI"),
        (several, "check is_whole of product: half of it; `make up` shows its table in the Dagster UI"),
    ],
)
def test_it_is_one_line_and_nothing_is_made_from_the_product(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, check: dg.AssetChecksDefinition, line: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    with pytest.raises(UserError) as caught:
        materialize(job(check), settings)
    assert str(caught.value) == line


def test_the_failed_run_is_not_marked_for_a_retry(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    with pytest.raises(UserError):
        materialize(job(is_sound), settings)
    with open_instance(dagster_home(settings)) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert instance.run_retries_enabled
        assert run.tags.get("dagster/will_retry", "false") == "false"


def test_a_killed_one_is_not_either(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is gone: the next `caco demo` marks it as failed, and resumes its work itself."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    definitions = dg.Definitions(assets=[product], jobs=[dg.define_asset_job("chain")], executor=dg.in_process_executor)
    chain = definitions.resolve_job_def("chain")
    with open_instance(dagster_home(settings)) as instance:
        tags = {IN_PROCESS: "true", MAX_RETRIES: "0"}
        killed = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED, tags=tags)
    materialize(chain, settings)
    with open_instance(dagster_home(settings)) as instance:
        before, now = (instance.get_run_by_id(run_id) for run_id in (killed.run_id, instance.get_runs()[0].run_id))
        assert before is not None
        assert before.status == dg.DagsterRunStatus.FAILURE
        assert before.tags.get("dagster/will_retry", "false") == "false"
        assert now is not None
        assert now.status == dg.DagsterRunStatus.SUCCESS
        assert tags.items() <= now.tags.items()
