"""What a vintage's training begins with: the champion when it began, looked up once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.parent import find_parent
from caco_assets.registry.register import register_encoder
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

MODEL = "caco-tiny"


@pytest.fixture
def warm(mlflow_settings: Settings) -> Settings:
    training = mlflow_settings.pretraining.model_copy(update={"warm_start": "champion"})
    return mlflow_settings.model_copy(update={"pretraining": training})


def test_the_champion_of_the_day_a_vintage_begins_stays_its_parent(
    logged, warm: Settings, encoder_dir: Callable[[int], Path]
) -> None:
    tracking: Tracking = open_tracking(warm)
    first = find_parent(warm, tracking=tracking)
    assert first.facts == {"vintage": "2026-10", "warm_start": "champion", "uri": None, "identity": None}
    for seed in (0, 1):
        made = register_encoder(warm, encoder_dir(seed), None, {"pack": f"{seed}"}, tracking=tracking)
        tracking.client.set_registered_model_alias(MODEL, "champion", made.version)
    # its own champion is no parent of a vintage that has begun without one
    assert find_parent(warm, tracking=tracking).facts == first.facts
    later = warm.model_copy(update={"vintage": "2026-11"})
    said = logged()
    found = find_parent(later, tracking=tracking)
    assert found.facts["uri"] == f"models:/{MODEL}/2"
    assert found.facts["identity"] == Encoder.load(encoder_dir(1)).identity == Encoder.load(found.path).identity
    assert said == ["parent: training starts from the weights of models:/caco-tiny/2, the champion"]
    tracking.client.set_registered_model_alias(MODEL, "champion", "1")
    assert find_parent(later, tracking=tracking).reused
    assert find_parent(later, tracking=tracking, again=True).facts["uri"] == f"models:/{MODEL}/1"


def test_a_cold_start_asks_no_registry(settings: Settings) -> None:
    assert find_parent(settings).facts["uri"] is None
    assert not (settings.paths.workspace / "mlflow").exists()
