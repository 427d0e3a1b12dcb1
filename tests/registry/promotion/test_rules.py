"""Rules about the artifact: time, size, preprocessing, drift; and who may set which aside."""

from pathlib import Path

import pytest
import yaml

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, produce
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.user import current_user
from caco_assets.registry.package.mlflow_model import Fetched
from caco_assets.registry.package.preprocessing_check import same_tensor, write_round_trip
from caco_assets.registry.promotion import latency
from caco_assets.registry.promotion.decision import Decision, Finding
from caco_assets.registry.promotion.override import check_override, request_override
from caco_assets.registry.promotion.policy import Drift, Latency, Policy, RoundTrip, Size, read_policy
from caco_assets.registry.promotion.rules import DRIFT, DRIFT_FINDINGS, PREPROCESSING, drift, drift_tags, round_trip, size
from caco_assets.settings import Settings
from caco_assets.settings.downstream import TaskData


@pytest.fixture
def encoder(encoder_dir) -> Encoder:
    return Encoder.load(encoder_dir(0))


def test_what_an_image_costs_is_measured_beside_the_champion_in_turns(encoder: Encoder) -> None:
    rule = Latency(images=2, rounds=5)
    timing = latency.measure(encoder, encoder, rule)
    assert timing.theirs is not None
    assert len(timing.mine) == len(timing.theirs) == 5
    assert 0 < timing.best < 1000
    names = [finding.rule for finding in latency.latency_findings(timing, rule, 32)]
    assert names == ["latency", "latency beside champion"]
    assert latency.measure(encoder, None, rule).ratios is None


def test_only_the_quickest_round_must_be_within_the_budget() -> None:
    rule = Latency(max_ms=10, rounds=5)
    disturbed = latency.Timing((9.0, 50.0, 80.0, 70.0, 60.0), None)
    (found,) = latency.latency_findings(disturbed, rule, 64)
    assert (found.passed, found.figure, found.row()["bound"]) == (True, 9.0, "≤ 10 ms")
    (found,) = latency.latency_findings(latency.Timing((11.0, 12.0, 11.5, 13.0, 11.2), None), rule, 64)
    assert not found.passed


def test_a_challenger_is_too_slow_only_when_that_is_sure() -> None:
    rule = Latency(max_ratio=1.5, rounds=11)
    champion = (10.0,) * 11
    disturbed = (10.0,) * 6 + (40.0,) * 5
    slow = (16.0,) * 10 + (9.0,)
    for mine, passes in ((champion, True), (disturbed, True), (slow, False)):
        finding = latency.latency_findings(latency.Timing(mine, champion), rule, 64)[1]
        assert finding.passed is passes, finding.sentence


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    # ranks of the tables (Conover): of 11 values the 2nd and the 10th, of 21 the 6th and the 16th
    assert latency.median_interval(tuple(range(1, 12))) == (2, 10)
    assert latency.median_interval(tuple(range(1, 22))) == (6, 16)
    assert latency.median_interval((1.0, 2.0, 3.0)) == (1.0, 3.0)


def test_a_file_or_a_network_beyond_the_budget_is_refused(encoder: Encoder) -> None:
    fetched = Fetched(encoder, 19.7, True)
    assert size(fetched, Size()).passed
    assert not size(fetched, Size(max_mb=10)).passed
    assert not size(fetched, Size(max_parameters=1000)).passed


def test_the_preprocessing_is_compared_bit_for_bit(encoder: Encoder, tmp_path: Path) -> None:
    from dataclasses import replace

    stored = write_round_trip(encoder, tmp_path / "round_trip.safetensors")
    assert same_tensor(encoder, stored)
    shifted = replace(encoder.preprocessing, mean=tuple(value + 1e-7 for value in encoder.preprocessing.mean))
    assert not same_tensor(encoder.with_preprocessing(shifted), stored)
    stored.write_bytes(b"no tensors")
    assert not same_tensor(encoder, stored)
    assert not round_trip(Fetched(encoder, 1.0, False), {}, RoundTrip()).passed
    assert round_trip(Fetched(encoder, 1.0, None), {PREPROCESSING: "abc"}, RoundTrip()).passed
    assert not round_trip(Fetched(encoder, 1.0, None), {}, RoundTrip()).passed
    assert round_trip(Fetched(encoder, 1.0, None), {}, RoundTrip(when_not_stored="allow")).passed


def _drift(settings: Settings, **facts: object) -> Product:
    def make(path: Path) -> dict[str, object]:
        path.write_text(str(facts))
        return facts

    return produce("drift", settings.paths.root / "drift.json", records=settings.paths.records, recipe="1", inputs=facts, make=make)


def test_drift_that_was_refused_refuses_and_drift_that_was_not_measured_is_the_policys_choice(settings: Settings) -> None:
    assert drift_tags(None, settings.vintage) == {}
    assert drift({}, Drift()).passed
    assert not drift({}, Drift(when_not_measured="refuse")).passed
    refused = _drift(settings, vintage=settings.vintage, reference="2026-09", accepted=False, findings=["B04: mean +40 %"])
    tags = drift_tags(refused, settings.vintage)
    assert tags == {DRIFT: "refused", DRIFT_FINDINGS: "B04: mean +40 %"}
    assert "B04: mean +40 %" in drift(tags, Drift()).sentence
    assert not drift(tags, Drift()).passed
    person = {"accepted_by": "ada", "reason": "a new sensor"}
    accepted = _drift(
        settings, vintage=settings.vintage, reference="2026-09", accepted=True, findings=["B04: mean +40 %"], **person
    )
    tags = drift_tags(accepted, settings.vintage)
    assert drift(tags, Drift()).passed
    assert "accepted by ada: a new sensor" in drift(tags, Drift()).sentence
    earlier = _drift(settings, vintage="2025-01", reference="2024-12", accepted=False, findings=[])
    assert drift_tags(earlier, settings.vintage) == {}


def test_only_those_whom_the_policy_names_may_set_rules_aside_and_only_some_rules() -> None:
    with pytest.raises(UserError, match=f"--override: {current_user()} is not in override.allowed .*empty"):
        request_override(Policy(main=({"row": "a"},)), "because")
    policy = Policy(main=({"row": "a"},), override={"allowed": (current_user(),), "rules": ("latency",)})
    with pytest.raises(UserError, match="say why"):
        request_override(policy, "  ")
    asked = request_override(policy, "a faster machine\nis on its way")
    slow = Finding("latency", False, "9 ms", key="latency")
    check_override(policy, Decision("caco", "2", "1", (slow,)))
    assert yaml.safe_load(asked.tag(Decision("caco", "2", "1", (slow,)))) == {
        "by": current_user(), "reason": "a faster machine is on its way", "rules": ["latency"]
    }  # fmt: skip
    for rule in ("loads", "round_trip", "withdrawn", "not_collapsed", "main_row", "main"):
        with pytest.raises(UserError, match="cannot be overridden"):
            check_override(policy, Decision("caco", "2", "1", (slow, Finding("it", False, "no", key=rule))))


def test_a_main_row_with_a_class_for_each_pixel_is_refused_when_the_policy_is_read(settings: Settings, policy: Path) -> None:
    tasks = {**settings.downstream.tasks, "roads": TaskData(task="loveda", optional=True)}
    dense = settings.model_copy(update={"downstream": settings.downstream.model_copy(update={"tasks": tasks})})
    rules = yaml.safe_load(policy.read_text())
    policy.write_text(yaml.safe_dump({**rules, "main": [{"row": "roads"}]}))
    with pytest.raises(UserError, match=r"main\.0\.row=roads: has a class for each pixel"):
        read_policy(dense)


def test_the_policy_of_the_repository_names_every_rule(settings: Settings, policy: Path) -> None:
    assert set(yaml.safe_load(policy.read_text())) == set(Policy.model_fields)
    assert read_policy(settings).override.allowed == ()
