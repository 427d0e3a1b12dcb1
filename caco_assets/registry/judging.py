"""Takes a decision: loads and scores a version, weighs it against the champion, records the decision, moves the aliases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caco_assets.downstream.datasets.dense import DenseImages
from caco_assets.downstream.features import FeatureCache
from caco_assets.downstream.judge import assignments
from caco_assets.downstream.rows import ScoreRow
from caco_assets.downstream.stage import score_encoder
from caco_assets.errors import UserError
from caco_assets.pretraining.encoder import Encoder
from caco_assets.progress import Say
from caco_assets.registry.aliases import WITHDRAWN, promote
from caco_assets.registry.packaged_encoder import load_version, preprocessing_hash
from caco_assets.registry.policy import Policy, read_policy
from caco_assets.registry.promotion import Decision, Finding, main_rule, not_collapsed, weigh
from caco_assets.registry.versions import CHAMPION, DECISION, GATE, IDENTITY, SCORES, aliases, find, registry_lock
from caco_assets.resources.mlflow import Tracking
from caco_assets.settings import Settings

PREPROCESSING = "preprocessing_sha256"
"""Tag: `packaged_encoder.preprocessing_hash` at registration."""
# Enough to tell a collapse, few enough for a singular value decomposition in a blink.
_IMAGES = 512


def judge_version(settings: Settings, tracking: Tracking, version: str, say: Say) -> Decision:
    """Decide on one version of the profile's model; it becomes the champion when it passes every rule.

    One decision at a time is taken per model and workspace: what a challenger is compared with is the champion until the end.
    A version that is the champion already keeps its decision.

    Raises:
        UserError: no such version, a bad policy, data of a task missing, or the server refuses.
    """
    policy, model = read_policy(settings), settings.registry.model
    with registry_lock(tracking, model, say):
        found = find(tracking, f"models:/{model}/{version}")
        champion = aliases(tracking, model).get(CHAMPION)
        if champion == version and DECISION in found.tags:
            say(f"{model}: version {version} is the champion already")
            return Decision.from_json(found.tags[DECISION])
        rival = None if champion in (None, version) else champion
        decision = _decision(settings, tracking, policy, version, rival, say)
        _record(tracking, decision, found.run_id)
        if decision.passed:
            promote(tracking, model, version)
    return decision


def scores_line(rows: Sequence[ScoreRow]) -> str:
    """The candidate's figures by the `clean` linear probe (where there is none, every figure), in one line."""
    measured = [row for row in rows if row.status == "measured" and row.role == "candidate"]
    main = [row for row in measured if row.protocol == "clean" and row.method == "linear_probe"] or measured
    shown = [f"{row.row} {row.value:.1%} ({row.protocol} {row.method}, {row.size} px)" for row in main]
    return "; ".join(shown) or "nothing measured"


def _decision(settings: Settings, tracking: Tracking, policy: Policy, version: str, champion: str | None, say: Say) -> Decision:
    model = settings.registry.model
    found = find(tracking, f"models:/{model}/{version}")
    findings, encoder = _loads(tracking, version, model)
    if encoder is None:
        return Decision(model, version, champion, (findings,))
    if WITHDRAWN in found.tags:
        sentence = f"a rollback took it out of service on {found.tags[WITHDRAWN]}; register a better encoder"
        return Decision(model, version, champion, (findings, Finding("not withdrawn", False, sentence)))
    rows = score_encoder(settings, encoder, name=model, model_uri=f"models:/{model}/{version}", say=say)
    with tracking.explained():
        tracking.client.set_model_version_tag(model, version, SCORES, scores_line(rows))
    rival_rows, compared = None, champion
    all_findings = [findings]
    if champion is not None:
        rival_finding, rival = _loads(tracking, champion, model)
        if rival is None:
            say(f"{model}: champion {champion} does not load ({rival_finding.sentence}); the absolute rules decide")
            compared = None
        else:
            rival_rows = score_encoder(settings, rival, name=model, model_uri=f"models:/{model}/{champion}", say=say)
    untrained = Encoder.random(encoder.architecture, encoder.preprocessing, settings.downstream.seeds[0])
    random = score_encoder(settings, untrained, "baseline", name="random", say=say)
    all_findings += weigh(policy, rows, rival_rows, random, settings.paths.root)
    if (rule := main_rule(policy, rows)) is not None:
        features = _features(settings, encoder, rule.row, rule.size, say)
        all_findings.append(not_collapsed(features, policy.not_collapsed))
    return Decision(model, version, compared, tuple(all_findings))


def _loads(tracking: Tracking, version: str, model: str) -> tuple[Finding, Encoder | None]:
    """The registered files give back the encoder that was registered, preprocessing included."""
    name = "artifact loads"
    found = find(tracking, f"models:/{model}/{version}")
    try:
        encoder = load_version(tracking, found)
    except UserError as error:
        return Finding(name, False, str(error)), None
    for tag, value in ((IDENTITY, encoder.identity), (PREPROCESSING, preprocessing_hash(encoder))):
        if found.tags.get(tag, value) != value:
            return Finding(name, False, f"{tag} is {value[:12]}…, registered was {found.tags[tag][:12]}…"), None
    known = "the same weights and preprocessing as registered" if IDENTITY in found.tags else "weights and preprocessing are whole"
    return Finding(name, True, f"{known} ({encoder.identity[:12]}…)"), encoder


def _features(settings: Settings, encoder: Encoder, row: str, size: int, say: Say) -> np.ndarray:
    """Features of test images of a row, from the cache of the scoring: (N, D)."""
    (data,) = [each.data for each in assignments(settings) if each.row == row]
    if data is None:
        raise UserError(f"downstream.tasks.{row}: its data has gone since it was scored; bring it back and decide again")
    if isinstance(data, DenseImages):
        raise UserError(f"policy.main: {row} has a class for each pixel; name a row of image labels, whose features can collapse")
    part = "test" if "test" in data.parts else "val"
    features = FeatureCache(settings.paths.cache, say).features(encoder, encoder.identity, data, part, size)
    return features[np.random.default_rng(settings.seed).permutation(len(features))[:_IMAGES]]


def _record(tracking: Tracking, decision: Decision, run_id: str | None) -> None:
    """The decision as tags of the version and files of its run."""
    client, model, version = tracking.client, decision.model, decision.version
    with tracking.explained():
        client.set_model_version_tag(model, version, DECISION, decision.to_json())
        client.set_model_version_tag(model, version, GATE, "passed" if decision.passed else "failed")
        if run_id:
            client.log_text(run_id, decision.to_json() + "\n", f"decision/version-{version}.json")
            client.log_text(run_id, decision.text() + "\n", f"decision/version-{version}.txt")
