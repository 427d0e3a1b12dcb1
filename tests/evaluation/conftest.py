"""A profile's folder with small, made-up products: scores first of all."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from caco_assets.core import products
from caco_assets.downstream.metrics.bootstrap import bootstrap_mean
from caco_assets.downstream.score_rows import RowStore, ScoreRow, write_rows
from caco_assets.settings import Settings, load_settings

REASON = "ImageNet weights of resnet18: not in the local cache (timm/resnet18), and none are downloaded"


def make_row(settings: Settings, encoder: str, value: float, **changes) -> ScoreRow:
    """A measured row with predictions for 200 images of which about `value` are right."""
    fields = {
        "row": "eurosat_real",
        "task": "eurosat",
        "protocol": "clean",
        "method": "linear_probe",
        "size": 64,
        "seed": 0,
        "metric": "accuracy",
        "data_version": "data-1/splits-2",
        "model_uri": None,
        "status": "measured",
        "note": f"made up for {encoder}",
        "role": "candidate" if encoder == "caco" else "baseline",
    } | changes
    right = np.arange(200) < round(200 * value)
    labels = np.zeros(200, int)
    name = "-".join(str(part) for part in (encoder, fields["row"], fields["protocol"], fields["method"], fields["seed"]))
    store = RowStore(settings.paths.root, settings.paths.cache)
    items = store.write_table(
        name, {"image": [f"i{n}.jpg" for n in range(200)], "label": labels, "prediction": np.where(right, 0, 1)}
    )
    low, high = bootstrap_mean(right.astype(float), 500, np.random.default_rng(0))
    return ScoreRow(encoder=encoder, value=float(right.mean()), ci_low=low, ci_high=high, n=200, items=items, **fields)


def not_measured(encoder: str, reason: str, **changes) -> ScoreRow:
    """A row without a figure."""
    fields = {
        "row": "eurosat_real",
        "task": "eurosat",
        "role": "baseline",
        "protocol": "clean",
        "method": "linear_probe",
        "size": 64,
        "seed": 0,
        "metric": "accuracy",
    } | changes
    empty = {"value": None, "ci_low": None, "ci_high": None, "n": 0, "data_version": "", "model_uri": None, "items": None}
    return ScoreRow(encoder=encoder, status="not_measured", note=reason, **fields, **empty)


def put(settings: Settings, name: str, path: Path, write, facts=None) -> None:
    """A product on record."""

    def make(target: Path):
        write(target)
        return facts or {}

    products.produce(name, path, records=settings.paths.records, recipe="1", inputs={}, make=make)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tasks = {"eurosat_real": {"task": "eurosat", "data": "EuroSAT.zip", "optional": True}}
    return load_settings("tiny", home=tmp_path, downstream={"tasks": tasks})


@pytest.fixture
def scored(settings: Settings) -> Settings:
    """A profile whose scores alone are on record."""
    rows = [
        make_row(settings, "caco", 0.82),
        make_row(settings, "random", 0.60),
        make_row(settings, "raw_statistics", 0.665),
        not_measured("imagenet", REASON),
        make_row(settings, "caco", 0.75, protocol="paper"),
        make_row(settings, "caco", 0.77, protocol="paper", seed=1),
        make_row(settings, "caco", 0.70, protocol="paper", method="linear_probe_eval_bn"),
        make_row(settings, "caco", 0.90, row="eurosat_twin"),
        make_row(settings, "caco", 0.95, row="eurosat_twin", protocol="paper"),
    ]
    put(settings, "scores", settings.paths.scores, lambda path: write_rows(path, rows), {"rows": len(rows)})
    return settings


@pytest.fixture
def complete(scored: Settings) -> Settings:
    """A profile with records, training metrics, quarantine, clear fractions and validation results beside the scores."""
    paths = scored.paths

    def encoder(folder: Path) -> None:
        folder.mkdir(parents=True)
        lines = [{"step": step, "epoch": step // 10, "loss": 5 - step / 50} for step in range(1, 101)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "encoder.json").write_text(json.dumps({"recipe": {"objective": "caco"}, "data": {"places": 12}}))
        for name in ("change_histogram.png", "change_gallery.png"):
            (folder / name).write_bytes(b"\x89PNG made up")

    def quarantine(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"reason": ["cloudy"] * 7 + ["nodata"] * 2 + ["<odd>"]}), path)

    put(scored, "encoder", paths.encoder, encoder, {"loss": 3.0})
    put(scored, "quarantine", paths.quarantine, quarantine, {"chips": 120})
    put(scored, "pack", paths.pack, lambda path: path.mkdir(parents=True), {"places": 12, "dates": 96})
    results = paths.data_docs / "results"
    results.mkdir(parents=True)
    for name, warnings in (("locations", []), ("pack", ["pack: 3 rows are odd"])):
        summary = {"product": name, "success": not warnings, "blocking_failed": [], "warnings": warnings, "evaluated": 9}
        (results / f"{name}.json").write_text(json.dumps({**summary, "table": [], "validated_at": "2026-11-21T00:00:00"}))
    return scored


@pytest.fixture
def as_dict():
    return asdict
