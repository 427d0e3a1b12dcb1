"""Moves of the champion: overrides, rollbacks, people who move it by hand, and who is told."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry import registry_lock as locks
from caco_assets.registry.aliases.alias_history import Serving, history
from caco_assets.registry.aliases.alias_moves import BY_HAND, WITHDRAWN, settle
from caco_assets.registry.aliases.champion import rollback
from caco_assets.registry.aliases.manual_moves import check_aliases
from caco_assets.registry.aliases.user import current_user
from caco_assets.registry.promotion import decide as decide_module
from caco_assets.registry.register import register_encoder
from caco_assets.registry.registry_lock import SUFFIX, registry_lock
from caco_assets.registry.stage import decide, decide_version
from caco_assets.registry.versions import aliases, find, local_lock
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
MODEL = "caco-tiny"


@pytest.fixture
def told(mlflow_settings: Settings) -> Path:
    """Where the command of the settings `heard` writes what it is told."""
    return mlflow_settings.home / "told.jsonl"


@pytest.fixture
def heard(mlflow_settings: Settings, told: Path, policy: Path) -> Settings:
    code = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"
    rules = yaml.safe_load(policy.read_text())
    quick = {"draws": 1000, "latency": {"rounds": 5, "images": 1}, "override": {"allowed": [current_user()], "rules": ["main"]}}
    policy.write_text(yaml.safe_dump({**rules, **quick}))
    changed = mlflow_settings.registry.model_copy(update={"notify": (sys.executable, "-c", code)})
    return mlflow_settings.model_copy(update={"registry": changed})


@pytest.fixture
def two(heard: Settings, encoder_dir: Callable[[int], Path], judged: dict[str, int]) -> Tracking:
    """Version 1 serves, version 2 is no better and has been refused."""
    tracking = open_tracking(heard)
    judged[Encoder.load(encoder_dir(1)).identity] = 151
    for seed in (0, 1):
        register_encoder(heard, encoder_dir(seed), None, {}, tracking=tracking)
        decide(heard, tracking=tracking)
    return tracking


def test_an_override_a_rollback_and_its_undoing_are_told_and_remembered(heard: Settings, two: Tracking, told: Path) -> None:
    assert find(two, f"models:/{MODEL}/2").tags["gate"] == "failed"
    decision = decide(heard, tracking=two, override="the new bands are needed")
    assert not decision.passed
    assert Serving.of(aliases(two, MODEL)) == Serving("2", "1")
    tags = find(two, f"models:/{MODEL}/2").tags
    assert tags["gate"] == "overridden"
    assert json.loads(tags["override"]) == {
        "by": current_user(), "reason": "the new bands are needed", "rules": ["beats champion on eurosat_twin"]
    }  # fmt: skip
    assert rollback(heard, two, reason="clouds everywhere").after.champion == "1"
    assert Serving.of(aliases(two, MODEL)) == Serving("1", "2")
    assert "clouds everywhere" in find(two, f"models:/{MODEL}/2").tags[WITHDRAWN]
    with pytest.raises(UserError, match=r"was withdrawn .*clouds everywhere.*--restore"):
        rollback(heard, two, reason="the same alarm")
    assert rollback(heard, two, reason="it was the map", restore=True).after.champion == "2"
    assert WITHDRAWN not in find(two, f"models:/{MODEL}/2").tags
    with pytest.raises(UserError, match="say why"):
        rollback(heard, two, reason=" ")
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert [event["event"] for event in events] == ["promoted", "refused", "overridden", "rolled back", "rolled back"]
    assert events[2]["by"] == current_user()
    assert events[3]["reason"] == "clouds everywhere"
    assert {move.what: move.by for move in history(two, MODEL)} == {
        "promoted": current_user(), "overridden": current_user(), "rolled back": current_user()
    }  # fmt: skip
    run = find(two, f"models:/{MODEL}/2").run_id
    kept = [file.path for file in two.client.list_artifacts(run, "decision")]
    assert len([path for path in kept if path.endswith("rolled-back.json")]) >= 1


def test_a_promotion_whose_process_died_before_anybody_was_told_is_told_by_the_next(
    heard: Settings, encoder_dir: Callable[[int], Path], judged: dict[str, int], told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = open_tracking(heard)
    judged[Encoder.load(encoder_dir(0)).identity] = 150
    run_id = find(tracking, register_encoder(heard, encoder_dir(0), None, {}, tracking=tracking).uri).run_id

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for last in ("log_move", "notify"):
        with monkeypatch.context() as patched:
            patched.setattr(decide_module, last, dies)
            with pytest.raises(KeyboardInterrupt):
                decide(heard, tracking=tracking)
    assert aliases(tracking, MODEL)["champion"] == "1"
    assert not told.exists()
    # what a release is written from is there, whatever has become of the process
    kept = {file.path.rpartition("/")[2] for file in tracking.client.list_artifacts(run_id, "decision")}
    assert {"version-1.json", "version-1.txt", "version-1.scores.json"} <= kept
    for _ in range(2):
        assert decide(heard, tracking=tracking).passed
    (event,) = [json.loads(line) for line in told.read_text().splitlines()]
    assert (event["event"], event["version"], event["by"]) == ("promoted", "1", current_user())
    kept = {file.path.rpartition("/")[2] for file in tracking.client.list_artifacts(run_id, "decision")}
    assert [name for name in kept if name.endswith("promoted.json")] != []


def test_a_person_who_moves_the_champion_is_respected_recorded_and_warned(heard: Settings, two: Tracking, told: Path) -> None:
    assert check_aliases(heard, two) is None
    two.client.set_registered_model_alias(MODEL, "champion", "2")
    told.unlink()
    found = check_aliases(heard, two)
    assert found is not None
    assert found.unfit
    assert "version 2 has failed the promotion policy" in found.text
    assert aliases(two, MODEL)["champion"] == "2"
    assert BY_HAND in find(two, f"models:/{MODEL}/2").tags
    last = history(two, MODEL)[-1]
    assert (last.what, last.before.champion, last.after.champion) == ("by hand", "1", "2")
    assert json.loads(told.read_text())["event"] == "by hand"
    assert check_aliases(heard, two) is None
    two.client.set_registered_model_alias(MODEL, "champion", "1")
    found = check_aliases(heard, two)
    assert found is not None
    assert not found.unfit
    two.client.delete_registered_model_alias(MODEL, "champion")
    found = check_aliases(heard, two)
    assert found is not None
    assert "champion 1 → none" in found.text


def test_the_check_of_the_aliases_does_not_wait_for_a_decision_under_way(heard: Settings, two: Tracking) -> None:
    with local_lock(two, MODEL), pytest.raises(UserError, match="another process holds the lock"):
        check_aliases(heard, two)
    with registry_lock(two, MODEL), pytest.raises(UserError, match="holds the registry lock"):
        # from another workspace: its own lock is free, the server's is not
        check_aliases(heard, Tracking(two.uri, two.experiment, two.artifacts, heard.home / "elsewhere"))


def test_a_failed_notification_undoes_nothing(logged, heard: Settings, two: Tracking) -> None:
    for command in (("/nowhere/at/all", "token-123"), (sys.executable, "-c", "raise SystemExit('token-123')")):
        changed = heard.registry.model_copy(update={"notify": command})
        said = logged()
        decide_version(heard.model_copy(update={"registry": changed}), two, "2")
        (warning,) = [line for line in said if "notification failed for 'refused'" in line]
        assert "raise SystemExit" not in warning
    slow = heard.registry.model_copy(update={"notify": ("sleep", "60"), "notify_timeout_s": 0.2})
    said = logged()
    decide_version(heard.model_copy(update={"registry": slow}), two, "2")
    assert any("timed out" in line for line in said)


def test_a_lock_left_by_the_dead_is_removed_and_that_of_the_living_is_not(
    logged, heard: Settings, two: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Tracking(two.uri, two.experiment, two.artifacts, heard.home / "elsewhere")
    dead = registry_lock(elsewhere, MODEL)
    dead.__enter__()
    said = logged()
    monkeypatch.setattr(locks, "STALE_S", 0.3)
    with registry_lock(two, MODEL):
        assert "holds the registry lock; waiting" in said[0]
        assert "which has died" in said[1]
    # a holder that resumes after a long sleep does not remove another's lock
    monkeypatch.setattr(locks, "HOLD_S", 0.0)
    with registry_lock(two, MODEL) as held, pytest.raises(UserError, match="run the same command again"):
        held.check()
    assert [model.name for model in two.client.search_registered_models() if SUFFIX in model.name] == [f"{MODEL}{SUFFIX}"]
    monkeypatch.undo()
    # this workspace's own lock is left over at once: no other process of it can be alive in here
    assert settle(two, MODEL).serving == Serving("1", None)
