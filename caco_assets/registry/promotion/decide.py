"""Decides on the promotion of a version: gathers the evidence, applies the policy, records the outcome and notifies."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.registry.aliases.alias_history import history
from caco_assets.registry.aliases.alias_moves import FAILED, OVERRIDDEN, PASSED, PROMOTED, WITHDRAWN, alias_writer, log_move
from caco_assets.registry.aliases.champion import promote
from caco_assets.registry.aliases.manual_moves import notify_manual_move
from caco_assets.registry.aliases.notify import notify
from caco_assets.registry.aliases.user import current_user
from caco_assets.registry.promotion.decision import Decision, Finding, not_collapsed, weigh
from caco_assets.registry.promotion.evidence import Evidence, gather
from caco_assets.registry.promotion.latency import latency_findings
from caco_assets.registry.promotion.override import TAG as OVERRIDE
from caco_assets.registry.promotion.override import Override, check_override, request_override
from caco_assets.registry.promotion.policy import Policy, read_policy
from caco_assets.registry.promotion.rules import drift, round_trip, size
from caco_assets.registry.versions import DECISION, GATE, SCORES, find, local_lock
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

ANNOUNCED = "announced"
"""Tag of a version: its promotion has been notified of."""
REFUSED = "refused"
_ATTEMPTS = 10
"""Another workspace can change the champion during a decision; each change takes it a decision of its own, so few suffice."""


def decide_promotion(settings: Settings, tracking: Tracking, version: str, *, override: str | None = None) -> Decision:
    """Decide on one version of the profile's model; it becomes the champion if it passes every rule.

    One decision at a time is taken in this workspace. If another workspace changes the champion meanwhile, the decision is taken
    again, against the new one. A version that is already the champion keeps its decision.

    Args:
        settings: the profile.
        tracking: the server.
        version: number.
        override: reason to promote it despite failed rules; only for users whom the policy allows.

    Raises:
        UserError: no such version, a bad policy, data of a task missing, an override that is not allowed, the server refuses, or
            the champion changed again and again.
    """
    policy, model = read_policy(settings), settings.registry.model
    requested = request_override(policy, override) if override is not None else None
    with local_lock(tracking, model):
        for _ in range(_ATTEMPTS):
            champion = _current_champion(settings, tracking)
            candidate = find(tracking, f"models:/{model}/{version}")
            if champion == version and DECISION in candidate.tags:
                return _earlier_decision(settings, tracking, candidate)
            evidence = gather(settings, tracking, policy, candidate, None if champion == version else champion)
            decision = apply_policy(settings, policy, evidence)
            applied = None if decision.passed else requested
            if applied is not None:
                check_override(policy, decision)
            if _write_outcome(tracking, champion, evidence, decision, applied):
                break
        else:
            raise UserError(
                f"{model}: the champion changed {_ATTEMPTS} times during the decision on version {version}; decide again"
            )
    _announce(settings, tracking, decision, applied)
    return decision


def apply_policy(settings: Settings, policy: Policy, evidence: Evidence) -> Decision:
    """The decision that the policy takes on the evidence; nothing is read from the server or written.

    Raises:
        UserError: rows to be compared are not about the same images.
    """
    candidate, fetched, measured = evidence.candidate, evidence.fetched, evidence.measured
    if fetched is None:
        return Decision(candidate.model, candidate.number, evidence.champion, (evidence.loads,))
    findings = [evidence.loads, round_trip(fetched, candidate.tags, policy.round_trip)]
    if measured is None:
        sentence = f"a rollback withdrew it from service on {candidate.tags[WITHDRAWN]}; register a better encoder"
        withdrawn = Finding("not withdrawn", False, sentence, key=WITHDRAWN)
        return Decision(candidate.model, candidate.number, evidence.champion, (*findings, withdrawn))
    findings += weigh(policy, measured.rows, measured.champion_rows, measured.random_rows, settings.paths.root)
    if measured.features is not None:
        findings.append(not_collapsed(measured.features, policy.not_collapsed))
    findings += latency_findings(measured.timing, policy.latency, fetched.encoder.preprocessing.size)
    findings += [size(fetched, policy.size), drift(candidate.tags, policy.drift)]
    compared_with = evidence.champion if measured.champion_rows is not None else None
    return Decision(candidate.model, candidate.number, compared_with, tuple(findings))


def scores_line(rows: Sequence[ScoreRow]) -> str:
    """The candidate's figures by the `clean` linear probe (without one: all figures) on one line."""
    measured = [row for row in rows if row.status == "measured" and row.role == "candidate"]
    main = [row for row in measured if row.protocol == "clean" and row.method == "linear_probe"] or measured
    shown = [f"{row.row} {row.value:.1%} ({row.protocol} {row.method}, {row.size} px)" for row in main]
    return "; ".join(shown) or "nothing measured"


def _current_champion(settings: Settings, tracking: Tracking) -> str | None:
    with alias_writer(tracking, settings.registry.model) as writer:
        champion = writer.serving.champion
    notify_manual_move(settings, tracking, writer)
    return champion


def _earlier_decision(settings: Settings, tracking: Tracking, version: ModelVersion) -> Decision:
    """The decision that made this version the champion; announced if its process died before it could."""
    model, number = version.name, str(version.version)
    logger.info(f"{model}: version {number} is already the champion")
    decision = Decision.from_json(version.tags[DECISION])
    promotions = (move for move in reversed(history(tracking, model)) if move.what in (PROMOTED, OVERRIDDEN))
    promotion = next((move for move in promotions if move.after.champion == number), None)
    if ANNOUNCED not in version.tags and promotion is not None:
        logger.info(f"{model}: the promotion of version {number} was interrupted before its notification; sending it now")
        log_move(tracking, model, promotion)
        notify(settings, tracking, promotion.what, **decision.message(), by=promotion.by, reason=promotion.reason)
        tracking.client.set_model_version_tag(model, number, ANNOUNCED, promotion.what)
    return decision


def _write_outcome(
    tracking: Tracking, champion: str | None, evidence: Evidence, decision: Decision, override: Override | None
) -> bool:
    """Write the decision to the version and its run, and promote the version if it passed or is overridden.

    Returns:
        False: the champion is not `champion` any more, so the decision does not hold and nothing was promoted.
    """
    model, number = decision.model, decision.version
    # before the champion moves, so that a promoted version has its decision and scores even if this process dies
    _log_files(tracking, evidence, decision)
    with alias_writer(tracking, model) as writer:
        if writer.serving.champion != champion:
            logger.info(f"{model}: version {writer.serving.champion} has become the champion meanwhile; deciding again")
            return False
        was_previous = number == writer.serving.previous
        _set_tags(tracking, evidence, decision, override, was_previous=was_previous)
        move = None
        if decision.passed or override is not None:
            move = promote(writer, number, override.reason if override else "passed the policy")
    if move is not None:
        logger.info(f"{model}: version {number} is the champion now, {move.what} by {move.by}: {move.reason}")
        log_move(tracking, model, move)
    return True


def _set_tags(tracking: Tracking, evidence: Evidence, decision: Decision, override: Override | None, *, was_previous: bool) -> None:
    """The decision as tags of the version; the gate last, because it lets a version serve.

    A sound previous champion that merely loses to the champion keeps its gate: a rollback returns to it.
    """
    known = evidence.candidate.tags.get(GATE)
    gate = PASSED if decision.passed else FAILED
    lost_only = {finding.key for finding in decision.failed} <= {"main", "others"}
    if was_previous and lost_only and known is not None and known != FAILED:
        gate = known
    set_tag = partial(tracking.client.set_model_version_tag, decision.model, decision.version)
    set_tag(DECISION, decision.to_json())
    if override is not None:
        set_tag(OVERRIDE, override.tag(decision))
        gate = OVERRIDDEN
    set_tag(GATE, gate)


def _log_files(tracking: Tracking, evidence: Evidence, decision: Decision) -> None:
    """The scores as a tag of the version; the decision and the scores as files of its run."""
    if evidence.measured is not None:
        tracking.client.set_model_version_tag(decision.model, decision.version, SCORES, scores_line(evidence.rows))
    if not evidence.candidate.run_id:
        return
    log = partial(tracking.client.log_text, evidence.candidate.run_id)
    log(decision.to_json() + "\n", f"decision/version-{decision.version}.json")
    log(decision.text() + "\n", f"decision/version-{decision.version}.txt")
    log(json.dumps([asdict(row) for row in evidence.rows], indent=1) + "\n", f"decision/version-{decision.version}.scores.json")


def _announce(settings: Settings, tracking: Tracking, decision: Decision, override: Override | None) -> None:
    event = PROMOTED if decision.passed else OVERRIDDEN if override else REFUSED
    by = asdict(override) if override else {"by": current_user(), "reason": "the policy"}
    notify(settings, tracking, event, **decision.message(), **by)
    if event != REFUSED:
        tracking.client.set_model_version_tag(decision.model, decision.version, ANNOUNCED, event)
