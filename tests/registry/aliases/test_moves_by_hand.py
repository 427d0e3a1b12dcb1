"""What serves is released before the next month, where a person or a run that died has put it there; if it may serve."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.orchestration.jobs import release_champion
from caco_assets.orchestration.sensors import alias_moved
from caco_assets.registry.register import register_encoder
from caco_assets.registry.release.release import RELEASED
from caco_assets.registry.stage import decide
from caco_assets.registry.versions import aliases, find
from caco_assets.resources.dagster.workspace_lock import release as give_back
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
MODEL = "caco-tiny"


@pytest.fixture
def instance(mlflow_settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(mlflow_settings.home)) as instance:
        yield instance


@dg.job
def chain() -> None:
    pass


@pytest.mark.usefixtures("policy")
def test_a_version_that_a_person_puts_into_service_is_released_if_its_gate_has_passed(
    mlflow_settings: Settings, encoder_dir: Callable[[int], Path], judged: dict[str, int], instance: dg.DagsterInstance
) -> None:
    settings, tracking = mlflow_settings, open_tracking(mlflow_settings)
    resources = {"profile": Profile(name="tiny", home=str(settings.home)), "tracking": TrackingResource()}

    def tick() -> dg.RunRequest | dg.SkipReason:
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            answer = alias_moved(context)
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    for seed in (0, 1, 2):
        # the third is not judged
        register_encoder(settings, encoder_dir(seed), None, {}, tracking=tracking)
        if seed < 2:
            judged[find(tracking, f"models:/{MODEL}/{seed + 1}").tags["encoder_identity"]] = 130 + 20 * seed
            assert decide(settings, tracking=tracking).passed
    # a decision is followed by its own release, unless the run that has taken it is no more
    deciding = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED, tags={"profile": "tiny"})
    assert isinstance(tick(), dg.SkipReason)
    instance.report_run_failed(deciding)
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert str(request.run_key).startswith(f"release-{MODEL}-2-20")

    tracking.client.set_registered_model_alias(MODEL, "champion", "1")
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert str(request.run_key).startswith(f"release-{MODEL}-1-20")
    # the same question gets the same answer until it is done: the key makes one run of it
    again = tick()
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == request.run_key
    assert release_champion.execute_in_process(instance=instance, resources=resources).success
    give_back()
    assert find(tracking, f"models:/{MODEL}/1").tags[RELEASED].endswith("release/version-1")
    assert "no alias of" in str(tick())

    tracking.client.set_registered_model_alias(MODEL, "champion", "3")
    assert "version 3 has no decision by the promotion policy" in str(tick())
    assert isinstance(tick(), dg.SkipReason)
    assert RELEASED not in find(tracking, f"models:/{MODEL}/3").tags
    assert aliases(tracking, MODEL)["champion"] == "3"
