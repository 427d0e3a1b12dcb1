"""The process that trains, seen from Dagster: its exit status, and what it said."""

import sys

import dagster as dg
import pytest

from caco_assets.pretraining.launch.pipes_resource import TrainingProcess

# dagster's own pipes use what dagster itself calls deprecated and in preview
pytestmark = [
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader"),
]

HELLO = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("hello from the other side")
"""


def materialized(code: str, instance: dg.DagsterInstance) -> tuple[list[object], str]:
    """What happened, and the id of the run."""
    happened: list[object] = []

    @dg.asset
    def encoder(context: dg.AssetExecutionContext, training: TrainingProcess) -> dg.MaterializeResult:
        start = training.start(context, before=lambda: happened.append("begun"))
        assert happened == []  # nothing begins before the process is wanted
        happened.append(start([sys.executable, "-c", code]))
        return dg.MaterializeResult()

    return happened, dg.materialize([encoder], resources={"training": TrainingProcess()}, instance=instance).run_id


@pytest.mark.parametrize(("code", "status"), [(HELLO, 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_the_process_gives_its_exit_status(code: str, status: int) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialized(code, instance)[0] == ["begun", status]


def test_its_lines_stand_in_the_runs_event_log() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        _, run_id = materialized(HELLO, instance)
        assert any("hello from the other side" in entry.user_message for entry in instance.all_logs(run_id))
