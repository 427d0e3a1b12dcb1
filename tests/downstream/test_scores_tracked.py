"""Scores reach the tracking server once and whole, also where the process that made them has died before it had sent them."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.core.products import Product, content_hash
from caco_assets.downstream import assets
from caco_assets.downstream.score_rows import ScoreRow, write_rows
from caco_assets.resources.dagster.workspace_lock import release
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.resources.mlflow.resource import LiveRun, TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings

# raised while MLflow's own database module is imported
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

ROW = ScoreRow(
    row="eurosat_twin", task="eurosat", encoder="caco", role="candidate", protocol="clean", method="linear_probe", size=64, seed=0,
    metric="accuracy", value=0.7, ci_low=0.6, ci_high=0.8, n=20, data_version="v", model_uri=None, status="measured", note="",
    items=None,
)  # fmt: skip


@pytest.fixture
def materialize(mlflow_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A run of the asset, whose scores have been made by an earlier one."""
    file = mlflow_settings.paths.scores
    file.parent.mkdir(parents=True, exist_ok=True)
    write_rows(file, [ROW])
    made = Product("scores", file, "mark", content_hash(file), reused=True)
    monkeypatch.setattr(assets, "score", lambda *_, **__: made)
    resources = {"profile": Profile(name="tiny", home=str(mlflow_settings.home)), "tracking": TrackingResource()}

    def run() -> None:
        with dg.DagsterInstance.local_temp(str(mlflow_settings.home)) as instance:
            try:
                assert dg.materialize([assets.scores], instance=instance, resources=resources).success
            finally:
                release()

    return run


def test_scores_of_a_process_that_died_are_sent_by_the_next_and_by_no_other(
    mlflow_settings: Settings, materialize: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = open_tracking(mlflow_settings)

    def runs() -> list[tuple[str, dict[str, float]]]:
        found = tracking.client.search_runs([tracking.experiment_id], order_by=["attributes.start_time"])
        return [(run.info.status, dict(run.data.metrics)) for run in found]

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LiveRun, "log", dies)
        with pytest.raises(Killed):
            materialize()
    sent = {"eurosat_twin.clean.linear_probe.64": pytest.approx(0.7)}
    for _ in range(2):
        materialize()
        assert [figures for status, figures in runs() if status == "FINISHED"] == [sent]


def test_the_rows_are_a_file_of_their_run(mlflow_settings: Settings, materialize: Callable[[], None], tmp_path: Path) -> None:
    materialize()
    tracking = open_tracking(mlflow_settings)
    (run,) = tracking.client.search_runs([tracking.experiment_id])
    fetched = tracking.client.download_artifacts(run.info.run_id, "scores.parquet", str(tmp_path))
    assert Path(fetched).read_bytes() == mlflow_settings.paths.scores.read_bytes()
