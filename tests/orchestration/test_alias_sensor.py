"""The sensor for moves by hand: a person moves the champion in MLflow, and it is noticed, respected and recorded."""

import logging

import dagster as dg
import pytest

from caco_assets.orchestration.sensors import alias_moved
from caco_assets.registry.aliases.alias_history import history
from caco_assets.registry.versions import aliases, local_lock
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings

pytestmark = [
    # dagster asks its resources for fields by pydantic's old name
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def test_a_move_by_hand_is_noticed_once_and_stays(mlflow_settings: Settings) -> None:
    model, tracking = mlflow_settings.registry.model, open_tracking(mlflow_settings)
    resources = {"profile": Profile(name="tiny", home=str(mlflow_settings.home)), "tracking": TrackingResource()}

    def tick() -> str:
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance, resources=resources) as context:
            result = alias_moved(context)
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    assert f"no alias of {model} has moved" in tick()
    tracking.client.create_registered_model(model)
    tracking.client.create_model_version(model, str(mlflow_settings.home / "nowhere"))
    tracking.client.set_registered_model_alias(model, "champion", "1")
    said = tick()
    assert said.startswith(f"{model}: champion none → 1")
    assert "has no decision by the promotion policy" in said
    assert aliases(tracking, model) == {"champion": "1"}
    assert [move.what for move in history(tracking, model)] == ["by hand"]
    assert f"no alias of {model} has moved" in tick()
    with local_lock(tracking, model):
        assert "another process holds the lock" in tick()


def test_lines_of_the_registry_stand_in_the_log_of_the_tick(
    mlflow_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check(*_: object) -> None:
        logging.getLogger("caco_assets.registry.aliases").info("finished an interrupted move")

    monkeypatch.setattr("caco_assets.registry.aliases.manual_moves.check_aliases", check)
    monkeypatch.setattr("caco_assets.registry.release.release.unreleased_champion", lambda *_, **__: None)
    resources = {"profile": Profile(name="tiny", home=str(mlflow_settings.home)), "tracking": TrackingResource()}
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance, resources=resources) as context:
        context.log.addHandler(caplog.handler)
        alias_moved(context)
    assert [record.getMessage() for record in caplog.records if record.name == context.log.name] == ["finished an interrupted move"]
