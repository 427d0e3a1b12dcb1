"""Small encoders, and scores as if they had been judged, so that a decision takes no training and no data."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.settings import Settings

IMAGES = 200
Maker = Callable[[int], Path]


def tiny_encoder(seed: int) -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), seed)


@pytest.fixture
def encoder_dir(tmp_path: Path) -> Maker:
    """Folder of a small encoder with weights of a seed."""

    def make(seed: int) -> Path:
        folder = tmp_path / f"encoder-{seed}"
        if not folder.exists():
            tiny_encoder(seed).save(folder, {"objective": "caco"}, {"vintage": "2026-10"})
            (folder / "metrics.jsonl").write_text("{}\n")
        return folder

    return make


@pytest.fixture
def policy(settings: Settings) -> Path:
    """The policy of the repository, in the home of the test."""
    target = settings.home / settings.registry.policy
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text((Path(__file__).parents[2] / "mlflow" / "promotion.yaml").read_text())
    return target


def scored(root: Path, name: str, right: int, rows: Sequence[str] = ("eurosat_twin",), **fields: object) -> list[ScoreRow]:
    """Rows of an encoder that gets the first `right` of `IMAGES` images right."""
    made = []
    labels = np.arange(IMAGES) % 10
    for row in rows:
        items = f"score_items/{name}-{row}.parquet"
        (root / items).parent.mkdir(parents=True, exist_ok=True)
        answers = np.where(np.arange(IMAGES) < right, labels, (labels + 1) % 10)
        table = {"image": [f"{index}.jpg" for index in range(IMAGES)], "label": labels, "prediction": answers}
        pd.DataFrame(table).to_parquet(root / items, index=False)
        basic = {
            "row": row, "task": "eurosat", "encoder": name, "role": "candidate", "protocol": "clean", "method": "linear_probe",
            "size": 64, "seed": 0, "metric": "accuracy", "value": right / IMAGES, "ci_low": 0.0, "ci_high": 1.0, "n": IMAGES,
            "data_version": "v", "model_uri": None, "status": "measured", "note": "", "items": items,
        }  # fmt: skip
        made.append(ScoreRow(**{**basic, **fields}))
    return made


@pytest.fixture
def scores(settings: Settings) -> Callable[..., list[ScoreRow]]:
    """Makes rows with per-item predictions in the test's own folder: `scores(name, right, rows=…, **fields)`."""
    return partial(scored, settings.paths.root)


@pytest.fixture
def judged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Identity of an encoder → images it gets right; the untrained baseline gets 100, any encoder not named 150."""
    right: dict[str, int] = {}

    def score_encoder(asked: Settings, encoder: Encoder, role: str = "candidate", **__: object) -> list[ScoreRow]:
        count = 100 if role == "baseline" else right.get(encoder.identity, 150)
        name = hashlib.sha256(f"{encoder.identity}{role}{count}".encode()).hexdigest()[:16]
        return scored(asked.paths.root, name, count, role=role)

    monkeypatch.setattr("caco_assets.registry.promotion.evidence.score_encoder", score_encoder)
    features = np.random.default_rng(0).normal(1, 1, (64, 32))
    monkeypatch.setattr("caco_assets.registry.promotion.evidence._features", lambda *_: features)
    return right
