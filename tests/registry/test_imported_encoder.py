"""Weights from elsewhere go the whole way: imported, judged on the twin, registered, loaded back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.readers.eurosat import CLASSES
from caco_assets.downstream.score_rows import read_rows
from caco_assets.downstream.stage import score_imported
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.pretrained.import_weights import import_encoder
from caco_assets.registry.package.mlflow_model import load_encoder
from caco_assets.registry.stage import register_imported
from caco_assets.registry.versions import SCORES, find
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture
def twin(mlflow_settings: Settings) -> Settings:
    """Settings whose twin of EuroSAT is six coloured pictures of each class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        folder = mlflow_settings.paths.benchmarks / "eurosat" / name
        folder.mkdir(parents=True)
        for number in range(1, 7):
            colour = np.array([25 * label, 255 - 25 * label, 60 + 12 * label])
            pixels = np.clip(colour + rng.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}_{number}.jpg")
    (mlflow_settings.paths.benchmarks / "eurosat" / "subset.json").write_text('{"images": 60, "note": "drawn by a test"}')
    return mlflow_settings


def test_an_imported_encoder_is_judged_registered_and_loaded_back(twin: Settings, encoder_dir) -> None:
    import_encoder(twin, str(encoder_dir(3)), "theirs", None)
    rows = score_imported(twin, "theirs")
    assert {row.encoder for row in rows} == {"theirs"}
    assert {row.status for row in rows} == {"measured"}
    assert [row.value for row in read_rows(twin.paths.encoder_scores("theirs"))] == [row.value for row in rows]
    assert not twin.paths.scores.exists()
    tracking = open_tracking(twin)
    registered = register_imported(twin, "theirs", tracking)
    assert load_encoder(registered.uri, tracking).identity == Encoder.load(encoder_dir(3)).identity
    assert "eurosat_twin" in find(tracking, registered.uri).tags[SCORES]
    assert register_imported(twin, "theirs", tracking).reused


def test_another_encoder_under_the_same_name_loses_the_old_scores(twin: Settings, encoder_dir) -> None:
    import_encoder(twin, str(encoder_dir(3)), "theirs", None)
    score_imported(twin, "theirs")
    import_encoder(twin, str(encoder_dir(4)), "theirs", None)
    assert not twin.paths.encoder_scores("theirs").exists()


def test_an_encoder_that_is_not_there_is_named(twin: Settings, tmp_path: Path) -> None:
    tracking = open_tracking(twin)
    for act in (lambda name: score_imported(twin, name), lambda name: register_imported(twin, name, tracking)):
        with pytest.raises(UserError, match=r"--encoder nobody: no encoder of that name and no folder of one; there are none"):
            act("nobody")
