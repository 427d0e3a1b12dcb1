"""Decisions with nothing replaced: a real (very small) benchmark is scored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caco_assets.downstream.datasets.readers.eurosat import CLASSES
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.registry.register import register_encoder
from caco_assets.registry.stage import decide
from caco_assets.registry.versions import aliases
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture
def benchmark_folder(settings: Settings) -> Path:
    """EuroSAT's layout with ten plain pictures per class, of the class's colour and much noise."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(CLASSES):
        folder = settings.paths.benchmarks / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(1, 11):
            picture = np.clip(rng.normal(40 + 18 * index, 40, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / f"{name}_{number}.jpg")
    (settings.paths.benchmarks / "eurosat" / "subset.json").write_text('{"images": 100, "note": "drawn by a test"}')
    return settings.paths.benchmarks / "eurosat"


def test_an_encoder_that_tells_nothing_apart_is_not_promoted(
    mlflow_settings: Settings, benchmark_folder: Path, policy: Path, tmp_path: Path
) -> None:
    collapsed = Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), 5)
    with torch.no_grad():
        for parameter in collapsed.backbone.parameters():
            parameter.zero_()
    collapsed.save(tmp_path / "collapsed", {}, {})
    tracking = open_tracking(mlflow_settings)
    register_encoder(mlflow_settings, tmp_path / "collapsed", None, {"pack": "a"}, tracking=tracking)
    decision = decide(mlflow_settings, tracking=tracking)
    verdict = {finding.rule: finding.passed for finding in decision.findings}
    assert verdict == {
        "artifact loads": True, "preprocessing round trip": True, "beats random on eurosat_twin": False, "not collapsed": False,
        "latency": True, "size": True, "drift accepted": True,
    }  # fmt: skip
    assert "champion" not in aliases(tracking, "caco-tiny")
    tags = tracking.client.get_model_version("caco-tiny", "1").tags
    assert tags["gate"] == "failed"
    assert "eurosat_twin" in tags["scores"]
