"""The schedule and the names that bind it to a vintage."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.automation import finished_month, monthly_retraining
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings


@pytest.mark.parametrize(("moment", "month"), [("2026-11-01", "2026-10"), ("2026-01-31", "2025-12"), ("2024-03-30", "2024-02")])
def test_the_vintage_is_the_month_that_is_over(moment: str, month: str) -> None:
    assert finished_month(datetime.fromisoformat(moment)) == month


def test_a_tick_asks_for_one_run_of_the_next_vintage_over_all_shards(settings: Settings, tmp_path: Path) -> None:
    profile = Profile(name="tiny", home=str(settings.home))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=datetime(2026, 12, 1, 3, tzinfo=UTC), resources={"profile": profile}
        )
        request = monthly_retraining(settings)(context)
        assert isinstance(request, dg.RunRequest)
        assert request.run_key == "tiny-2026-11"
        assert request.run_config["resources"]["profile"]["config"]["vintage"] == "2026-11"
        assert set(instance.get_dynamic_partitions("shards")) == {"0000", "0001"}
        assert request.tags["dagster/asset_partition_range_end"] == "0001"


def test_the_vintage_of_a_run_overrules_the_profiles_own(settings: Settings) -> None:
    assert Profile(name="tiny", home=str(settings.home), vintage="2025-01").settings().vintage == "2025-01"


def test_selection_strings_parse() -> None:
    # an antlr4 runtime of another version makes every selection string raise
    assert dg.AssetSelection.from_string("pack+") is not None


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
