"""Promotion by several processes at once, and by processes that die on the way: real processes, two workspaces, one registry."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_history import HISTORY
from caco_assets.registry.aliases.alias_moves import INTENT, WITHDRAWN, unfit
from caco_assets.registry.promotion.decide import ANNOUNCED
from caco_assets.registry.register import register_encoder
from caco_assets.registry.registry_lock import SUFFIX
from caco_assets.registry.stage import decide
from caco_assets.registry.versions import DECISION, GATE, SCORES, aliases, find, registered_tags
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.systems,
    pytest.mark.counted,
    # a minute or two on an idle machine, many on a busy one
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
MODEL = "caco-tiny"
ROUNDS = 50 if os.environ.get("SLOW") else 3


class Decider:
    """A process that decides as it is told."""

    def __init__(self, home: Path, tracking_uri: str, right: dict[str, int]) -> None:
        self.basic = {"home": str(home), "tracking_uri": tracking_uri, "right": right}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "decider.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**self.basic, **order}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        # ends its standard input, and closes both pipes
        self.process.communicate(timeout=60)


class Registry:
    """Version 1 serves; 2 and 3 are better than it, and neither is better than the other. Two workspaces know it."""

    def __init__(self, settings: Settings, encoder_dir: Callable[[int], Path], judged: dict[str, int], folder: Path) -> None:
        self.tracking: Tracking = open_tracking(settings)
        identities = {seed: Encoder.load(encoder_dir(seed)).identity for seed in (0, 1, 2)}
        judged.update({identities[0]: 150, identities[1]: 180, identities[2]: 180})
        for seed in (0, 1, 2):
            register_encoder(settings, encoder_dir(seed), None, {}, tracking=self.tracking)
            if seed == 0:
                assert decide(settings, tracking=self.tracking).passed
        rules = (settings.home / settings.registry.policy).read_text()
        self.deciders = []
        for name in ("here", "there"):
            home = folder / name
            (home / "mlflow").mkdir(parents=True)
            # quick to decide: what is tried here is who moves what
            quick = {**yaml.safe_load(rules), "draws": 1000, "latency": {"rounds": 5, "images": 1}}
            (home / "mlflow" / "promotion.yaml").write_text(yaml.safe_dump(quick))
            self.deciders.append(Decider(home, self.tracking.uri, judged))
        for decider in self.deciders:
            assert decider.answer() == {"ready": True}

    def begin_again(self) -> None:
        """As if 2 and 3 had never been decided on."""
        client = self.tracking.client
        client.set_registered_model_alias(MODEL, "champion", "1")
        client.delete_registered_model_alias(MODEL, "previous")
        for tag in (HISTORY, INTENT):
            client.delete_registered_model_tag(MODEL, tag)
        for version in ("1", "2", "3"):
            for tag in (GATE, DECISION, SCORES, WITHDRAWN, ANNOUNCED) if version != "1" else (WITHDRAWN,):
                if tag in client.get_model_version(MODEL, version).tags:
                    client.delete_model_version_tag(MODEL, version, tag)

    def state(self) -> dict[str, str]:
        known = aliases(self.tracking, MODEL)
        return {name: known[name] for name in ("champion", "previous") if name in known}

    def whole(self) -> None:
        """Nothing is left half done: what serves may serve, the history ends with it, no lock and no intent stand."""
        state = self.state()
        assert unfit(self.tracking, MODEL, state["champion"]) is None
        tags = registered_tags(self.tracking, MODEL)
        assert INTENT not in tags
        after = json.loads(tags[HISTORY])[-1]["after"]
        assert {name: number for name, number in after.items() if number} == state
        names = [model.name for model in self.tracking.client.search_registered_models()]
        assert not [name for name in names if SUFFIX in name]


def test_two_processes_at_once_and_processes_that_die(
    mlflow_settings: Settings, encoder_dir: Callable[[int], Path], policy: Path, judged: dict[str, int], tmp_path: Path
) -> None:
    # one test: the two processes take as long to start as all their decisions take
    registry = Registry(mlflow_settings, encoder_dir, judged, tmp_path / "workspaces")
    try:
        of_two_processes_in_two_workspaces_one_wins_every_time(registry)
        a_process_killed_at_any_write_leaves_a_champion_that_may_serve_and_the_next_one_goes_on(registry)
    finally:
        for decider in registry.deciders:
            decider.close()


def of_two_processes_in_two_workspaces_one_wins_every_time(registry: Registry) -> None:
    winners = []
    for number in range(ROUNDS):
        registry.begin_again()
        for decider, version in zip(registry.deciders, ("2", "3") if number % 2 else ("3", "2"), strict=True):
            decider.tell(version=version)
        answers = [decider.answer() for decider in registry.deciders]
        assert [answer.get("error") for answer in answers] == [None, None]
        (winner,) = [answer for answer in answers if answer["passed"]]
        (loser,) = [answer for answer in answers if not answer["passed"]]
        assert winner["compared_with"] == "1"
        state = registry.state()
        assert loser["compared_with"] == state["champion"]
        assert state["previous"] == "1"
        gates = [find(registry.tracking, f"models:/{MODEL}/{version}").tags[GATE] for version in ("2", "3")]
        assert gates == (["passed", "failed"] if state["champion"] == "2" else ["failed", "passed"])
        registry.whole()
        winners.append(answers.index(winner))
    # both can win, or nothing was raced; a few rounds may fall to one side by chance
    assert set(winners) == {0, 1} or ROUNDS < 50


def a_process_killed_at_any_write_leaves_a_champion_that_may_serve_and_the_next_one_goes_on(registry: Registry) -> None:
    decider, other = registry.deciders
    order: dict[str, str] = {"version": "2"}
    for wanted, state in (({"version": "2"}, {"champion": "2", "previous": "1"}), ({"rollback": "worse"}, {})):
        order, died = wanted, []
        for step in range(1, 100):
            registry.begin_again()
            if "rollback" in order:
                decider.tell(version="2", die_at=0)
                assert decider.answer()["passed"]
            decider.tell(**order, die_at=step)
            answer = decider.answer()
            if "killed_before" not in answer:
                break
            died.append(answer["killed_before"])
            assert unfit(registry.tracking, MODEL, registry.state()["champion"]) is None, (step, answer)
            decider.tell(version="2", die_at=0)
            again = decider.answer()
            assert "error" not in again, (step, answer, again)
            registry.whole()
            if state:
                assert registry.state() == state
                assert ANNOUNCED in find(registry.tracking, f"models:/{MODEL}/2").tags
            else:
                # before the champion had moved the rollback has not happened, after it it has: never a half of it
                withdrawn = WITHDRAWN in find(registry.tracking, f"models:/{MODEL}/2").tags
                assert registry.state() == ({"champion": "1", "previous": "2"} if withdrawn else {"champion": "2", "previous": "1"})
        assert "set_registered_model_alias" in died
        assert "create_registered_model" in died
    assert other.process.poll() is None
