from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from caco_assets.core.errors import UserError
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.registry.promotion.decision import Decision, Finding, effective_rank, not_collapsed, relative_spread, weigh
from caco_assets.registry.promotion.policy import NotCollapsed, Policy, read_policy
from caco_assets.settings import Settings

Scores = Callable[..., list[ScoreRow]]


@pytest.fixture
def rules(settings: Settings, policy: Path) -> Policy:
    return read_policy(settings)


def _weigh(settings: Settings, rules: Policy, *rows: Any) -> dict[str, Finding]:
    return {finding.rule: finding for finding in weigh(rules, *rows, settings.paths.root)}


def test_a_gain_counts_only_when_its_interval_lies_above_the_margin(settings: Settings, rules: Policy, scores: Scores) -> None:
    champion, random = scores("champion", 150), scores("random", 100)
    for right, passes in ((152, False), (153, False), (156, True), (180, True), (140, False), (150, False)):
        found = _weigh(settings, rules, scores(f"challenger-{right}", right), champion, random)["beats champion on eurosat_twin"]
        assert found.passed is passes, found.sentence
        assert found.figure == pytest.approx((right - 150) / 200)
        assert found.low is not None
        assert found.low <= found.figure


def test_a_margin_asks_for_more_than_a_gain(settings: Settings, rules: Policy, scores: Scores) -> None:
    rows = scores("challenger", 160), scores("champion", 150), scores("random", 100)
    assert _weigh(settings, rules, *rows)["beats champion on eurosat_twin"].passed
    strict = rules.model_copy(update={"main": (rules.main[0].model_copy(update={"margin": 0.05}),)})
    assert not _weigh(settings, strict, *rows)["beats champion on eurosat_twin"].passed


def test_without_a_champion_the_absolute_rules_decide(settings: Settings, rules: Policy, scores: Scores) -> None:
    found = _weigh(settings, rules, scores("challenger", 150), None, scores("random", 100))
    assert {name: finding.passed for name, finding in found.items()} == {"beats random on eurosat_twin": True}
    found = _weigh(settings, rules, scores("poor", 101), None, scores("random", 100))
    assert not found["beats random on eurosat_twin"].passed


def test_no_other_row_may_be_clearly_worse(settings: Settings, rules: Policy, scores: Scores) -> None:
    rows = ("eurosat_twin", "eurosat_real")
    champion, random = scores("champion", 150, rows), scores("random", 100, rows)
    better, worse = scores("better", 180), scores("worse", 140, ("eurosat_real",))
    found = _weigh(settings, rules, [*better, *worse], champion, random)
    assert found["beats champion on eurosat_twin"].passed
    assert not found["not worse on eurosat_real, 64 px"].passed
    slightly = scores("slightly", 147, ("eurosat_real",))
    assert _weigh(settings, rules, [*better, *slightly], champion, random)["not worse on eurosat_real, 64 px"].passed
    gone = _weigh(settings, rules, better, champion, random)["not worse on eurosat_real, 64 px"]
    assert not gone.passed
    assert "not for the challenger" in gone.sentence


def test_a_policy_whose_rows_are_not_measured_passes_nothing(settings: Settings, rules: Policy, scores: Scores) -> None:
    found = _weigh(settings, rules, scores("challenger", 200, ("other",)), None, scores("random", 10, ("other",)))
    assert not found["main row"].passed
    assert "measured: other" in found["main row"].sentence
    absent = [replace(row, status="not_measured", items=None, value=None) for row in scores("challenger", 200)]
    assert not _weigh(settings, rules, absent, None, scores("random", 10))["main row"].passed


def test_scores_of_other_images_are_never_compared(settings: Settings, rules: Policy, scores: Scores) -> None:
    import pandas as pd

    challenger, champion = scores("challenger", 190), scores("champion", 150)
    items = settings.paths.root / str(champion[0].items)
    pd.read_parquet(items).assign(image=lambda table: "other-" + table["image"]).to_parquet(items)
    with pytest.raises(UserError, match="same data version"):
        weigh(rules, challenger, champion, scores("random", 100), settings.paths.root)


def test_collapsed_features_are_seen_whatever_their_kind() -> None:
    rule, rng = NotCollapsed(min_effective_rank=4, min_spread=0.01), np.random.default_rng(0)
    healthy = rng.normal(1, 1, (256, 64))
    assert not_collapsed(healthy, rule).passed
    constant = np.ones((256, 64))
    noise = constant + rng.normal(0, 1e-5, (256, 64))
    line = np.outer(rng.normal(1, 1, 256), rng.normal(1, 1, 64))
    broken = np.where(rng.random((256, 64)) < 0.01, np.nan, healthy)
    for kind in (constant, noise, line, broken, np.zeros((256, 64))):
        assert not not_collapsed(kind, rule).passed


def test_the_effective_rank_counts_directions() -> None:
    for k in (1, 3, 8):
        corners = np.concatenate([np.eye(8)[:k], -np.eye(8)[:k]])
        assert effective_rank(corners) == pytest.approx(k)
    assert effective_rank(np.ones((5, 3))) == 0
    assert relative_spread(np.array([[3.0, 1.0], [3.0, -1.0]])) == pytest.approx(1 / 3)


def test_a_decision_survives_json_and_reads_well() -> None:
    findings = (Finding("artifact loads", True, "whole"), Finding("beats champion", False, "gain -1.0%", -0.01, -0.03, 0.01, 0.0))
    decision = Decision("caco", "3", "2", findings)
    assert Decision.from_json(decision.to_json()) == decision
    assert not decision.passed
    assert not Decision("caco", "3", None, ()).passed
    lines = decision.text().splitlines()
    assert lines[0] == "caco version 3 does not pass (against champion 2)"
    assert lines[2].startswith("  FAIL  beats champion  gain")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mian": []}, r"mian: unknown key; allowed: main, others, baseline"),
        ({"main": [{"row": "a", "margn": 1}]}, r"main\.0\.margn: unknown key; allowed: row, protocol, method, size, margin"),
        ({"main": [{"row": "a", "margin": -1}]}, r"main\.0\.margin=-1"),
        ({"main": []}, r"main=\[\]"),
        ({"others": {"tolerance": "much"}}, r"others\.tolerance='much'"),
        ({"main": [{"protocol": "clean"}]}, r"main\.0\.row: Field required"),
    ],
)
def test_a_wrong_policy_names_key_value_and_what_is_allowed(
    settings: Settings, policy: Path, change: dict[str, Any], said: str
) -> None:
    policy.write_text(yaml.safe_dump({**yaml.safe_load(policy.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        read_policy(settings)


def test_a_policy_that_is_absent_or_not_yaml_is_the_users_error(settings: Settings) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_policy(settings)
    path = settings.home / settings.registry.policy
    path.parent.mkdir()
    path.write_text("main: [")
    with pytest.raises(UserError, match="not readable as YAML"):
        read_policy(settings)
