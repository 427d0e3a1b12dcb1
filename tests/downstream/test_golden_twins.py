"""No score changes silently: every task, protocol and method on the twins against a stored table."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from caco_assets.downstream.tasks import TASKS

_SPEC = spec_from_file_location("golden_twins", Path(__file__).with_name("golden_twins.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
golden_twins = module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden_twins)

FAST = ("eurosat", "bigearthnet", "levir_cd")
"""One of each kind: a class, several classes, a class for each pixel."""
HINT = "if that was meant, run `python tests/downstream/golden_twins.py` and commit the table with the change"


@pytest.mark.parametrize(
    "task",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TASKS if name not in golden_twins.LEFT_OUT],
)
def test_the_figures_on_a_twin_are_those_of_the_table(task, tmp_path):
    stored = golden_twins.read()["tasks"][task]
    found = golden_twins.figures(golden_twins.rows_of(task, tmp_path))
    assert found.keys() == stored.keys(), HINT
    off = [
        f"{name}: {found[name]:.4f}, stored {value:.4f} ± {tolerance:.4f}"
        for name, (value, tolerance) in stored.items()
        if abs(found[name] - value) > tolerance + 1e-4
    ]
    assert not off, f"{'; '.join(off)}; {HINT}"


def test_the_encoder_is_the_one_of_the_table():
    table = golden_twins.read()
    assert golden_twins.encoder().identity == table["encoder"], f"the table was made with torch {table['torch']}; {HINT}"


def test_every_task_protocol_and_kind_of_method_is_in_the_table():
    table = golden_twins.read()["tasks"]
    assert table.keys() == TASKS.keys() - set(golden_twins.LEFT_OUT)
    for name, rows in table.items():
        found = {tuple(row.split()[1:3]) for row in rows}
        assert {protocol for protocol, _ in found} == {"paper", "clean"}
        assert ("clean", "fine_tune") in found
        assert {row.split()[0] for row in rows} == {"resnet18", "raw_statistics"}
        if TASKS[name].dense:
            assert ("clean", "frozen_decoder") in found
        else:
            assert {("clean", "linear_probe"), ("clean", "knn5"), ("clean", "knn20")} <= found


def test_every_task_has_a_figure_that_could_fall():
    for name, rows in golden_twins.read()["tasks"].items():
        assert any(value > tolerance for value, tolerance in rows.values()), name


def test_tolerances_are_tight_enough_to_mean_something():
    tolerances = [tolerance for rows in golden_twins.read()["tasks"].values() for _, tolerance in rows.values()]
    assert all(0 < tolerance <= 0.2 for tolerance in tolerances)
    assert sorted(tolerances)[len(tolerances) // 2] <= 0.05
