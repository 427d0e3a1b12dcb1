"""Change estimates against the truth: figures by hand, tables that are none, and weights that do not know of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.pretraining.change.estimate import ChangeState
from caco_assets.pretraining.change.ground_truth import ChangeTruth
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import load_settings

PLACES = ("L0000000", "L0000001", "L0000002", "L0000003")


def table(path: Path, changed: dict[str, bool | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"location_id": list(changed), "changed": list(changed.values()), "kind": [""] * len(changed)}), path)
    return path


def state(estimates: list[float], labels: list[int], kind: str = "ema_ratio") -> ChangeState:
    found = ChangeState(len(estimates), beta=0.8, kind=kind)
    values = torch.tensor(estimates)
    found.update(torch.arange(len(values)), values.flip(0), torch.ones(len(values)), values)
    found.label.copy_(torch.tensor(labels))
    return found


def test_auroc_precision_and_recall_by_hand(tmp_path: Path) -> None:
    truth = ChangeTruth.read(table(tmp_path / "t.parquet", dict(zip(PLACES, (True, False, True, False), strict=True))), PLACES)
    # place-periods of changed places: 0, 1, 4, 5
    estimates = [9.0, 2.0, 3.0, 1.0, 8.0, 7.0, 4.0, 0.0]
    figures = truth.figures(state(estimates, [1, 0, 0, 0, 1, 0, 1, 0]))
    pairs = [(estimates[k], estimates[u]) for k in (0, 1, 4, 5) for u in (2, 3, 6, 7)]
    assert figures["change_auroc_ratio"] == pytest.approx(np.mean([k > u for k, u in pairs]))
    assert figures["change_auroc_ema_ratio"] == figures["change_auroc_ratio"]
    flipped = estimates[::-1]
    pairs = [(flipped[k], flipped[u]) for k in (0, 1, 4, 5) for u in (2, 3, 6, 7)]
    assert figures["change_auroc_distance"] == pytest.approx(np.mean([k > u for k, u in pairs]))
    assert figures["change_precision"] == pytest.approx(2 / 3)
    assert figures["change_recall"] == pytest.approx(2 / 4)


def test_what_is_not_defined_is_left_out(tmp_path: Path) -> None:
    nothing_changed = ChangeTruth.read(table(tmp_path / "a.parquet", dict.fromkeys(PLACES, False)), PLACES)
    assert nothing_changed.figures(state([1.0] * 8, [0] * 8)) == {}
    some = ChangeTruth.read(table(tmp_path / "b.parquet", {"L0000001": True, "L0000003": None, "L9999999": False}), PLACES)
    assert some.known.tolist() == [False, True, False, False]
    assert some.figures(state([1.0] * 8, [0] * 8)) == {"change_recall": 0.0}
    assert some.figures(ChangeState(8, beta=0.8)) == {}


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"no\.parquet: not a table of true change with `location_id` and `changed`"):
        ChangeTruth.read(tmp_path / "no.parquet", PLACES)
    pq.write_table(pa.table({"location_id": ["L0000000"]}), tmp_path / "half.parquet")
    with pytest.raises(UserError, match="not a table of true change"):
        ChangeTruth.read(tmp_path / "half.parquet", PLACES)
    with pytest.raises(UserError, match="names none of the 4 places of the pack"):
        ChangeTruth.read(table(tmp_path / "other.parquet", {"L9999999": True}), PLACES)


@pytest.mark.parametrize("estimate", ["ema_ratio", "distance"])
def test_the_truth_is_reported_each_epoch_and_changes_no_weight(tmp_path: Path, make_pack, estimate: str) -> None:
    pack = make_pack(tmp_path / "pack")
    wanted = {"backbone": "test_resnet", "threads": 1, "device": "cpu", "change_estimate": estimate}
    options = load_settings("tiny", home=tmp_path, pretraining=wanted).pretraining
    places = Pack.open(pack).location_id
    truth = table(tmp_path / "truth.parquet", {place: number % 3 == 0 for number, place in enumerate(places)})
    facts = {}
    for name, path in (("with", truth), ("without", None)):
        facts[name] = make_encoder(RunConfig(pack=pack, target=tmp_path / name, pretraining=options, truth=path))
    assert Encoder.load(tmp_path / "with").identity == Encoder.load(tmp_path / "without").identity
    figures = {"change_auroc_distance", "change_auroc_ratio", "change_auroc_ema_ratio", "change_recall"}
    epochs = [line for line in read_metrics(tmp_path / "with" / "metrics.jsonl") if "epoch_loss" in line]
    assert len(epochs) == 2
    assert all(figures <= set(line) for line in epochs)
    assert all(0 <= line[name] <= 1 for line in epochs for name in figures)
    assert facts["with"]["change_auroc_ratio"] == epochs[-1]["change_auroc_ratio"]
    assert set(facts["with"]) - set(facts["without"]) <= figures | {"change_precision"}
    assert not any("auroc" in name for name in facts["without"])
    counted = pq.read_table(tmp_path / "with" / "change_estimates.parquet")
    assert {"location_id", "period", "long", "short", "ratio", "last_long", "last_ratio", "label", "seen"} == set(
        counted.column_names
    )
    assert facts["with"]["changed_slots"] == sum(counted["label"].to_pylist())
    assert facts["with"]["changed_slots"] + facts["with"]["unchanged_slots"] + facts["with"]["unseen_slots"] == 24
    assert "truth" not in json.dumps(json.loads((tmp_path / "with" / "encoder.json").read_text()))
