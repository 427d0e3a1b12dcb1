"""What goes out with a champion: exports, card, map; once for each version, and again where it was cut short."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.register import register_encoder
from caco_assets.registry.release import release as module
from caco_assets.registry.release.model_card import DESCRIPTION_LENGTH, as_description
from caco_assets.registry.release.release import MAP, MODEL_CARD, RELEASED
from caco_assets.registry.stage import decide, release
from caco_assets.registry.versions import find
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
MODEL = "caco-tiny"


@pytest.fixture
def tracking(mlflow_settings: Settings, encoder_dir: Callable[[int], Path], policy: Path, judged: dict[str, int]) -> Tracking:
    """Version 1 serves; the places that it names lie in the workspace."""
    places = mlflow_settings.paths.locations
    places.parent.mkdir(parents=True)
    pd.DataFrame({"lon": [2.1, 2.2], "lat": [41.1, 41.2]}).to_parquet(places)
    opened = open_tracking(mlflow_settings)
    data = {"locations": content_hash(places)}
    register_encoder(mlflow_settings, encoder_dir(0), None, data, tracking=opened)
    assert decide(mlflow_settings, tracking=opened).passed
    return opened


def test_a_champion_is_released_once_with_card_map_and_exports(
    mlflow_settings: Settings, tracking: Tracking, encoder_dir: Callable[[int], Path], tmp_path: Path
) -> None:
    from mlflow.artifacts import download_artifacts

    released = release(mlflow_settings, tracking=tracking)
    assert released is not None
    assert released.places is not None
    assert released.places[:4] == b"\x89PNG"
    folder = Path(download_artifacts(artifact_uri=released.where, dst_path=str(tmp_path), tracking_uri=tracking.uri))
    assert {path.name for path in folder.iterdir()} == {
        "encoder.safetensors", "encoder.json", "timm.safetensors", "item.json", "parity.json", MODEL_CARD, MAP
    }  # fmt: skip
    assert Encoder.load(folder).identity == Encoder.load(encoder_dir(0)).identity
    card = (folder / MODEL_CARD).read_text()
    for expected in (
        "# caco-tiny, version 1", "It passed the promotion policy.", "| eurosat_twin | accuracy, clean linear_probe, 64 px, seed 0",
        "75.0%", "0.0% – 100.0%", "Apache-2.0", "not a single real pixel", "places.png", "| artifact loads | pass |",
        content_hash(mlflow_settings.paths.locations),
    ):  # fmt: skip
        assert expected in card
    version = find(tracking, f"models:/{MODEL}/1")
    assert (version.description, version.tags[RELEASED]) == (released.card, released.where)
    assert released.card.splitlines()[0] == card.splitlines()[0]
    assert "![" not in released.card
    again = release(mlflow_settings, tracking=tracking)
    assert again is not None
    assert again.reused
    assert again.card == released.card


def test_a_release_cut_short_is_made_again_and_the_champion_serves_all_the_while(
    mlflow_settings: Settings, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> dict[str, float]:
        raise UserError("encoder.onnx differs")

    with monkeypatch.context() as broken:
        broken.setattr(module, "export_files", fails)
        with pytest.raises(UserError, match="differs"):
            release(mlflow_settings, tracking=tracking)
    version = find(tracking, f"models:/{MODEL}@champion")
    assert RELEASED not in version.tags
    # other places than those that trained it are not drawn as its own
    mlflow_settings.paths.locations.write_bytes(b"others")
    released = release(mlflow_settings, tracking=tracking)
    assert released is not None
    assert released.places is None
    assert "not in the workspace that wrote this card" in released.card


def test_without_a_champion_there_is_nothing_to_release(mlflow_settings: Settings) -> None:
    assert release(mlflow_settings, tracking=open_tracking(mlflow_settings)) is None


def test_a_card_too_long_for_a_description_is_cut_at_a_line_and_says_where_all_of_it_is() -> None:
    card = "\n".join(f"line {number} {'x' * 40}" for number in np.arange(200))
    cut = as_description(card, "runs:/abc/release/version-1/model_card.md")
    assert len(cut) <= DESCRIPTION_LENGTH
    assert cut.endswith("… full card: runs:/abc/release/version-1/model_card.md\n")
    assert as_description("short", "runs:/abc") == "short"
