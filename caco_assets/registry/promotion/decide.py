"""Takes a decision: loads and scores a version, weighs it against the champion, records the decision, moves the aliases."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.downstream.scoring.score_task import assignments
from caco_assets.downstream.stage import score_encoder
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_history import history
from caco_assets.registry.aliases.alias_moves import (
    FAILED,
    MOVED_BY_HAND,
    OVERRIDDEN,
    PASSED,
    PROMOTED,
    WITHDRAWN,
    log_move,
    moving,
)
from caco_assets.registry.aliases.champion import promote
from caco_assets.registry.aliases.notify import notify, told
from caco_assets.registry.aliases.user import who
from caco_assets.registry.promotion import latency
from caco_assets.registry.promotion.decision import Decision, Finding, main_rule, not_collapsed, weigh
from caco_assets.registry.promotion.override import TAG as OVERRIDE
from caco_assets.registry.promotion.override import Override, ask, check
from caco_assets.registry.promotion.policy import Policy, read_policy
from caco_assets.registry.promotion.rules import drift, loads, round_trip, size
from caco_assets.registry.versions import DECISION, GATE, SCORES, find, registry_lock
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

ANNOUNCED = "announced"
"""Tag of a version: its promotion has been told."""
# Enough to tell a collapse, few enough for a singular value decomposition in a blink.
_IMAGES = 512


def judge_version(settings: Settings, tracking: Tracking, version: str, *, override: str | None = None) -> Decision:
    """Decide on one version of the profile's model; it becomes the champion when it passes every rule.

    What a challenger is compared with is the champion until the end: in this workspace one decision at a time is taken, and if the
    champion has been moved from elsewhere meanwhile, the decision is taken again, against the new one. A version that is the
    champion already keeps its decision.

    Args:
        settings: the profile.
        tracking: the server.
        version: number.
        override: reason to promote it against rules that it fails; only for those whom the policy allows.

    Raises:
        UserError: no such version, a bad policy, data of a task missing, an override that is not allowed, or the server refuses.
    """
    policy, model = read_policy(settings), settings.registry.model
    asked = ask(policy, override) if override is not None else None
    move = None
    with registry_lock(tracking, model):
        while True:
            found = find(tracking, f"models:/{model}/{version}")
            with moving(tracking, model) as mover:
                champion = mover.serving.champion
            if mover.noticed:
                notify(settings, tracking, MOVED_BY_HAND, version=champion, warnings=list(mover.noticed))
            if champion == version and DECISION in found.tags:
                logger.info(f"{model}: version {version} is the champion already")
                decision = Decision.from_json(found.tags[DECISION])
                _tell_late(settings, tracking, found, decision)
                return decision
            rival = None if champion in (None, version) else champion
            decision, rows = _decision(settings, tracking, policy, version, rival)
            if asked is not None and not decision.passed:
                check(policy, decision)
            # before anything moves: whoever is promoted has its decision and scores beside it, whenever this process ends
            _into_run(tracking, decision, rows, found.run_id)
            with moving(tracking, model) as mover:
                if mover.serving.champion != champion:
                    logger.info(f"{model}: version {mover.serving.champion} has become champion meanwhile; deciding again")
                    continue
                _record(tracking, decision, asked, served=version == mover.serving.previous and found.tags.get(GATE) != FAILED)
                if decision.passed or asked is not None:
                    move = promote(mover, version, asked.reason if asked and not decision.passed else "passed the policy")
            if move is not None:
                logger.info(f"{model}: version {version} is the champion now, {move.what} by {move.by}: {move.reason}")
                log_move(tracking, model, move)
            break
    event = PROMOTED if decision.passed else OVERRIDDEN if asked else "refused"
    more = {"by": asked.by, "reason": asked.reason} if asked and not decision.passed else {"by": who(), "reason": "the policy"}
    notify(settings, tracking, event, **told(decision), **more)
    if event != "refused":
        tracking.client.set_model_version_tag(model, version, ANNOUNCED, event)
    return decision


def _tell_late(settings: Settings, tracking: Tracking, version: ModelVersion, decision: Decision) -> None:
    """What follows a promotion, where the process that made it has died before: its move as a file of the run, and a notice."""
    if ANNOUNCED in version.tags:
        return
    model, number = version.name, str(version.version)
    for move in reversed(history(tracking, model)):
        if move.what in (PROMOTED, OVERRIDDEN) and move.after.champion == number:
            logger.info(f"{model}: the promotion of version {number} was cut short before anybody was told; it is told now")
            log_move(tracking, model, move)
            notify(settings, tracking, move.what, **told(decision), by=move.by, reason=move.reason)
            tracking.client.set_model_version_tag(model, number, ANNOUNCED, move.what)
            return


def scores_line(rows: Sequence[ScoreRow]) -> str:
    """The candidate's figures by the `clean` linear probe (where there is none, every figure), in one line."""
    measured = [row for row in rows if row.status == "measured" and row.role == "candidate"]
    main = [row for row in measured if row.protocol == "clean" and row.method == "linear_probe"] or measured
    shown = [f"{row.row} {row.value:.1%} ({row.protocol} {row.method}, {row.size} px)" for row in main]
    return "; ".join(shown) or "nothing measured"


def _decision(
    settings: Settings, tracking: Tracking, policy: Policy, version: str, champion: str | None
) -> tuple[Decision, list[ScoreRow]]:
    model = settings.registry.model
    found = find(tracking, f"models:/{model}/{version}")
    whole, fetched = loads(tracking, model, version)
    if fetched is None:
        return Decision(model, version, champion, (whole,)), []
    encoder = fetched.encoder
    all_findings = [whole, round_trip(fetched, found.tags, policy.round_trip)]
    if WITHDRAWN in found.tags:
        sentence = f"a rollback took it out of service on {found.tags[WITHDRAWN]}; register a better encoder"
        return Decision(model, version, champion, (*all_findings, Finding("not withdrawn", False, sentence, key=WITHDRAWN))), []
    rows = score_encoder(settings, encoder, name=model, model_uri=f"models:/{model}/{version}")
    tracking.client.set_model_version_tag(model, version, SCORES, scores_line(rows))
    rival, rival_rows, compared = None, None, champion
    if champion is not None:
        rival_finding, rival = loads(tracking, model, champion)
        if rival is None:
            logger.info(
                f"WARNING: {model}: champion {champion} does not load ({rival_finding.sentence}); the absolute rules decide"
            )
            compared = None
        else:
            rival_rows = score_encoder(settings, rival.encoder, name=model, model_uri=f"models:/{model}/{champion}")
    untrained = Encoder.random(encoder.architecture, encoder.preprocessing, settings.downstream.seeds[0])
    random = score_encoder(settings, untrained, "baseline", name="random")
    all_findings += weigh(policy, rows, rival_rows, random, settings.paths.root)
    if (rule := main_rule(policy, rows)) is not None:
        features = _features(settings, encoder, rule.row, rule.size)
        all_findings.append(not_collapsed(features, policy.not_collapsed))
    timing = latency.measure(encoder, rival.encoder if rival else None, policy.latency)
    all_findings += latency.judge(timing, policy.latency, encoder.preprocessing.size)
    all_findings += [size(fetched, policy.size), drift(found.tags, policy.drift)]
    return Decision(model, version, compared, tuple(all_findings)), rows


def _features(settings: Settings, encoder: Encoder, row: str, size: int) -> np.ndarray:
    """Features of test images of a row, from the cache of the scoring: (N, D)."""
    (data,) = [each.data for each in assignments(settings) if each.row == row]
    if data is None:
        raise UserError(f"downstream.tasks.{row}: its data has gone since it was scored; bring it back and decide again")
    if isinstance(data, DenseImages):
        raise TypeError(f"{row}: has a class for each pixel, which `read_policy` refuses")
    part = "test" if "test" in data.parts else "val"
    features = FeatureCache(settings.paths.cache).features(encoder, encoder.identity, data, part, size)
    return features[np.random.default_rng(settings.seed).permutation(len(features))[:_IMAGES]]


def _record(tracking: Tracking, decision: Decision, override: Override | None, *, served: bool) -> None:
    """The decision as tags of the version; the gate last: it is what lets a version serve.

    One that `served` before and is sound keeps its gate when it merely loses to the champion: it is what a rollback goes back to.
    """
    client, model, version = tracking.client, decision.model, decision.version
    gate = PASSED if decision.passed else FAILED
    if served and {finding.key for finding in decision.failed} <= {"main", "others"}:
        gate = find(tracking, f"models:/{model}/{version}").tags.get(GATE, gate)
    client.set_model_version_tag(model, version, DECISION, decision.to_json())
    if override is not None and not decision.passed:
        client.set_model_version_tag(model, version, OVERRIDE, override.tag(decision))
        gate = OVERRIDDEN
    client.set_model_version_tag(model, version, GATE, gate)


def _into_run(tracking: Tracking, decision: Decision, rows: Sequence[ScoreRow], run_id: str | None) -> None:
    """The decision and the scores it rests on as files of the version's run."""
    if not run_id:
        return
    log = partial(tracking.client.log_text, run_id)
    log(decision.to_json() + "\n", f"decision/version-{decision.version}.json")
    log(decision.text() + "\n", f"decision/version-{decision.version}.txt")
    log(json.dumps([asdict(row) for row in rows], indent=1) + "\n", f"decision/version-{decision.version}.scores.json")
