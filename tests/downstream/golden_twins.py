"""The scores of two fixed encoders on the twins, as a table that a silent change of a number runs into.

The encoders are a ResNet-18 of seeded random weights and plain statistics of the pixels; the twins are those of the profile `tiny`.
`test_golden_twins.py` compares; after a change that was meant to change numbers

    python tests/downstream/golden_twins.py [TASK …]

measures them again (all tasks: some minutes; one thread, as in the tests) and rewrites `golden_twins.json`, whose difference
belongs to the change.

A figure may differ between machines and versions of torch by rounding alone: a sum in another request, another kernel. Of frozen
features that may carry one image over a border, or change places in a ranking; a decoder or network that is trained carries it on.
Measured on LEVIR-CD's twin: one thread, two, and without oneDNN's kernels differ by 0 to 0.017 in F1 and IoU after training, by
nothing for plain pixels. Allowed: three times that after training (accuracy: at least two images; average precision: 0.1, where
parts have few images), one image of frozen features or 0.03 of average precision, 0.01 for plain pixels.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from caco_assets.downstream.evaluate import TaskRequest, evaluate
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.downstream.tasks import TASKS
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.settings import Settings, TaskData, load_settings
from caco_assets.synthetic.stage import TWINS, build_benchmarks, build_twin

TABLE = Path(__file__).with_name("golden_twins.json")
SIDE, TILES = 32, 8
"""Of pictures, and at most of each part: numbers, not knowledge, are wanted here."""
LEFT_OUT = ("aid_50",)
"""The pictures, the reader and the protocols of `aid_20`, at twice its cost."""
SHORT = {
    "baselines": ["raw_statistics"],
    "seeds": [0],
    "paper_epochs": 5,
    "dense_twin": {"epochs": 2, "fine_tune_epochs": 1, "batch_size": 4},
    "fine_tune_twin": {"epochs": 2, "batch_size": 16, "learning_rates": [1e-3], "paper_size": 64},
}
TRAINED, TRAINED_AP, FROZEN_AP, PLAIN = 0.05, 0.1, 0.03, 0.01
"""Tolerances; see above."""


def encoder() -> Encoder:
    """The same weights wherever torch draws the same numbers; the table holds their hash."""
    return Encoder.random("resnet18", Preprocessing.of_pack(RGB, "seco", SIDE), 0)


def rows_of(task: str, home: Path) -> list[ScoreRow]:
    """Every row of a task: both protocols and fine-tuning."""
    settings = load_settings("tiny", home=home, downstream=SHORT)
    fields: dict[str, Any] = {"task": task, "data": _twin(settings, task), "sizes": (SIDE,), "fine_tune": True}
    if TASKS[task].dense:
        fields |= {"tile": 64, "limit": TILES}
    request = TaskRequest(TaskData.model_validate(fields), twin=True)
    return [row for row in evaluate(settings, [request], encoder(), name="resnet18") if row.status == "measured"]


def figures(rows: list[ScoreRow]) -> dict[str, float]:
    """`encoder protocol method metric seed` → value."""
    return {
        f"{row.encoder} {row.protocol} {row.method} {row.metric} {row.seed}": row.value for row in rows if row.value is not None
    }


def _twin(settings: Settings, task: str) -> Path:
    if task in TWINS:
        return build_twin(settings, task).path
    return build_benchmarks(settings).path / TASKS[task].folder


def measure(task: str) -> dict[str, list[float]]:
    """Figure → value and tolerance."""
    with tempfile.TemporaryDirectory() as home:
        rows = rows_of(task, Path(home))
    tolerances = [_tolerance(row) for row in rows]
    found = zip(figures(rows).items(), tolerances, strict=True)
    return {name: [round(value, 5), round(tolerance, 5)] for (name, value), tolerance in found}


def _tolerance(row: ScoreRow) -> float:
    trained = row.method == "fine_tune"
    if TASKS[row.task].dense:
        return PLAIN if row.encoder == "raw_statistics" else TRAINED
    if row.metric == "accuracy":
        return max(TRAINED, 2 / row.n) if trained else 1 / row.n
    return TRAINED_AP if trained else FROZEN_AP


def read() -> dict[str, Any]:
    """The stored table."""
    return json.loads(TABLE.read_text())


def main(tasks: list[str]) -> None:
    """Rewrite the table, or the part of some tasks."""
    torch.set_num_threads(1)
    table = read() if TABLE.exists() else {"tasks": {}}
    table["torch"], table["encoder"] = torch.__version__.partition("+")[0], encoder().identity
    for task in tasks or [name for name in TASKS if name not in LEFT_OUT]:
        table["tasks"][task] = measure(task)
        sys.stderr.write(f"{task}: {len(table['tasks'][task])} figures\n")
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
