"""From a pack to the product `encoder`: its files and facts, resumption inside it, and settings that cannot work."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, produce
from caco_assets.pretraining import stage
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.on_record import training_inputs
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.settings import Settings, load_settings

# timm's smallest residual network, made for tests
PRETRAINING = {
    "backbone": "test_resnet",
    "image_size": 32,
    "batch_size": 8,
    "queue_size": 32,
    "epochs": 2,
    "threads": 1,
    "device": "cpu",
}


FILES = {
    "encoder.safetensors",
    "encoder.json",
    "metrics.jsonl",
    "loss_curve.png",
    "change_estimates.parquet",
    "change_histogram.png",
    "change_gallery.png",
}


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def chips(places: int, dates: int, brightest: int) -> Iterator[Chip]:
    for place in range(places):
        for period in range(2):
            for season in range(dates):
                generator = np.random.default_rng((place, period, season))
                yield Chip(
                    f"L{place:07d}", period, season, 0.0, 0.0, generator.integers(1, brightest, (3, 40, 40), dtype=np.uint16)
                )


def with_pack(home: Path, places: int = 12, dates: int = 3, brightest: int = 4000, **pretraining: object) -> Settings:
    """Settings of the smallest profile with a pack of noise on disk and on record."""
    settings = load_settings("tiny", home=home, pretraining={**PRETRAINING, **pretraining})

    def make(target: Path) -> dict:
        bands = ("B04", "B03", "B02")
        sizes = {"chip_size": 40, "seasons": 3, "min_seasons": min(dates, 2), "total": places * 2 * dates}
        return build(
            chips(places, dates, brightest),
            target,
            bands=bands,
            archive_bands=bands,
            stretch="seco",
            **sizes,
        )

    produce("pack", settings.paths.pack, records=settings.paths.records, recipe="test", inputs={}, make=make)
    return settings


def silent(line: str) -> None:
    pass


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def pretrain(settings: Settings, **options: object) -> Product:
    return stage.pretrain(settings, training_inputs(settings), **options)


class KillAt:
    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._step:
            raise Killed


def test_the_product_holds_the_encoder_the_figures_and_the_change_estimates(tmp_path: Path) -> None:
    settings = with_pack(tmp_path)
    product = pretrain(settings)
    folder = settings.paths.encoder
    assert {file.name for file in folder.iterdir()} == FILES
    encoder = Encoder.load(folder)
    assert encoder.preprocessing.size == 32
    about = json.loads((folder / "encoder.json").read_text())
    assert about["recipe"]["objective"] == "caco"
    assert about["data"]["places"] == 12
    estimates = pq.read_table(folder / "change_estimates.parquet").to_pydict()
    assert estimates["location_id"][:4] == ["L0000000", "L0000000", "L0000001", "L0000001"]
    assert estimates["period"][:4] == [0, 1, 0, 1]
    assert estimates["seen"] == [2] * 24
    assert estimates["long"][0::2] == estimates["long"][1::2]
    assert set(estimates["label"]) <= {0, 1}
    facts = product.facts
    assert facts["steps"] == 6
    assert facts["changed_slots"] == sum(estimates["label"])
    assert facts["loss"] == read_metrics(folder / "metrics.jsonl")[-1]["epoch_loss"]
    assert facts["images_per_s"] > 0
    assert facts["collapsed"] is (facts["embedding_std"] < 0.05)
    assert pretrain(settings).reused


def test_training_changes_the_weights_and_two_runs_give_the_same(tmp_path: Path) -> None:
    encoders = [Encoder.load(pretrain(with_pack(tmp_path / name)).path) for name in ("a", "b")]
    assert encoders[0].identity == encoders[1].identity
    start = Encoder.random("test_resnet", encoders[0].preprocessing, seed=0)
    assert start.identity != encoders[0].identity


def test_a_killed_pretraining_resumes_inside_its_partial_folder(logged, tmp_path: Path) -> None:
    whole = pretrain(with_pack(tmp_path / "whole"))
    settings = with_pack(tmp_path / "parts")
    with pytest.raises(Killed):
        pretrain(settings, sinks=[KillAt(6)])
    assert not settings.paths.encoder.exists()
    said = logged()
    resumed = pretrain(settings)
    assert any("resuming after epoch 1 of 2" in line for line in said)
    assert Encoder.load(resumed.path).identity == Encoder.load(whole.path).identity
    losses = [[line.get("loss") for line in read_metrics(product.path / "metrics.jsonl")] for product in (whole, resumed)]
    assert losses[0] == losses[1]
    assert [path.name for path in settings.paths.root.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("objective", ["moco_v2", "moco_v2_tp", "seco", "teco"])
def test_objectives_without_a_change_estimate_make_an_encoder_and_no_estimates(tmp_path: Path, objective: str) -> None:
    product = pretrain(with_pack(tmp_path, objective=objective, epochs=1))
    assert product.facts["steps"] == (3 if objective == "teco" else 1)
    assert not (product.path / "change_estimates.parquet").exists()
    assert "changed_share" not in product.facts


def test_a_collapsed_encoder_is_said_to_be_one(logged, tmp_path: Path) -> None:
    said = logged()
    # images of one colour each, all the same: there is nothing to tell apart
    product = pretrain(with_pack(tmp_path / "same", brightest=2))
    assert product.facts["collapsed"] is True
    assert any("embeddings have collapsed" in line for line in said)
    assert pretrain(with_pack(tmp_path / "noise")).facts["collapsed"] is False


def test_settings_that_only_change_the_speed_reuse_the_product(tmp_path: Path) -> None:
    pretrain(with_pack(tmp_path, epochs=1))
    assert pretrain(with_pack(tmp_path, epochs=1, threads=2, checkpoint_every=5)).reused


def test_bands_that_the_pack_lacks_are_refused(tmp_path: Path) -> None:
    settings = with_pack(tmp_path, bands=["B04", "B08"], epochs=1)
    with pytest.raises(UserError, match=r"pretraining.bands=B04,B08: the pack has B04,B03,B02, not B08; build the pack again"):
        pretrain(settings)


def test_an_encoder_of_some_of_the_packs_bands_says_which(tmp_path: Path) -> None:
    settings = with_pack(tmp_path, bands=["B02", "B04"], pack_bands=["B04", "B03", "B02"], epochs=1)
    encoder = Encoder.load(pretrain(settings).path)
    assert encoder.preprocessing == Preprocessing.of_pack(("B02", "B04"), "seco", settings.pretraining.image_size)


@pytest.mark.parametrize(
    ("changes", "places", "dates", "message"),
    [
        ({"objective": "caca"}, 12, 3, r"pretraining.objective=caca: .* did you mean caco\? choose one of moco_v2, "),
        ({"batch_size": 7, "queue_size": 28}, 12, 3, r"batch_size=7: must be a multiple of 2"),
        ({"queue_size": 36}, 12, 3, r"pretraining.queue_size=36: must be a multiple of batch_size=8 .*; set it to 32"),
        ({"queue_size": 4}, 12, 3, r"pretraining.queue_size=4: must be a multiple of batch_size=8 .*; set it to 8"),
        ({"batch_size": 32}, 12, 3, r"batch_size=32: the pack .* holds only 24 samples"),
        ({}, 12, 2, r"min_seasons: a place of the pack .* has only 2 dates to draw from, this objective draws 3"),
        ({"stretch": "eurosat"}, 12, 3, r"pretraining.stretch=eurosat: the pack has seco; build the pack again"),
        ({"probe_every": 2}, 12, 3, r"pretraining.probe_every=2: no probe is passed to this run; set it to 0"),
        ({"backbone": "resnet19"}, 12, 3, r"backbone=resnet19: timm has no such architecture; did you mean"),
    ],
)
def test_settings_that_cannot_work_stop_before_the_first_step(tmp_path, changes, places, dates, message) -> None:
    settings = with_pack(tmp_path, places=places, dates=dates, **changes)
    with pytest.raises(UserError, match=message) as caught:
        pretrain(settings)
    assert "\n" not in str(caught.value)
    assert not list(settings.paths.root.rglob("metrics.jsonl"))


def test_a_gpu_asked_for_and_absent_stops_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"pretraining.device=cuda: this machine has no usable CUDA device"):
        pretrain(with_pack(tmp_path, device="cuda"))


def test_without_a_pack_the_way_to_one_is_said(settings: Settings) -> None:
    with pytest.raises(UserError, match="pack: not made yet"):
        pretrain(settings)
