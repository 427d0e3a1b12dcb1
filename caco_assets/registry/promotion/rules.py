"""Rules about what was registered, not how it scores: it loads, sees pixels as it did, is small enough, its data is sound."""

from __future__ import annotations

from collections.abc import Mapping

from caco_assets.core.errors import UserError
from caco_assets.core.products import recorded
from caco_assets.registry.package.mlflow_model import Fetched, fetch, preprocessing_hash
from caco_assets.registry.promotion.decision import Finding
from caco_assets.registry.promotion.policy import Drift, RoundTrip, Size
from caco_assets.registry.versions import IDENTITY, find
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking
from caco_assets.settings import Settings

PREPROCESSING = "preprocessing_sha256"
"""Tag: `packaged_encoder.preprocessing_hash` at registration."""
DRIFT = "drift"
"""Tag: `accepted` or `refused`, the outcome of the comparison of its data with the vintage before; absent: not measured."""
DRIFT_FINDINGS = "drift.findings"
"""Tag: what that comparison found, in one line."""
LOADS, ROUND_TRIP, WITHDRAWN = "loads", "round_trip", "withdrawn"
"""Keys of findings that no one can set aside."""
_LONGEST = 1000


def loads(tracking: Tracking, model: str, version: str) -> tuple[Finding, Fetched | None]:
    """The registered files give back the encoder that was registered, weights and preprocessing.

    Raises:
        ServerAwayError: nobody can tell now; a champion must not lose to a server that restarts.
    """
    name, found = "artifact loads", find(tracking, f"models:/{model}/{version}")
    try:
        fetched = fetch(tracking, found)
    except ServerAwayError:
        raise
    except UserError as error:
        return Finding(name, False, str(error), key=LOADS), None
    encoder = fetched.encoder
    for tag, value in ((IDENTITY, encoder.identity), (PREPROCESSING, preprocessing_hash(encoder))):
        if found.tags.get(tag, value) != value:
            return Finding(name, False, f"{tag} is {value[:12]}…, registered was {found.tags[tag][:12]}…", key=LOADS), None
    known = "the same weights and preprocessing as registered" if IDENTITY in found.tags else "weights and preprocessing are whole"
    return Finding(name, True, f"{known} ({encoder.identity[:12]}…)", key=LOADS), fetched


def round_trip(fetched: Fetched, tags: Mapping[str, str], rule: RoundTrip) -> Finding:
    """The preprocessing gives the tensor it gave before registration, bit for bit, on the stored picture."""
    name = "preprocessing round trip"
    if fetched.round_trip is not None:
        said = "the same tensor, bit for bit, as before registration" if fetched.round_trip else "another tensor than before"
        return Finding(name, fetched.round_trip, f"{said}, on the stored picture", key=ROUND_TRIP)
    if PREPROCESSING in tags:
        # `loads` has compared it
        return Finding(name, True, f"no picture is stored; its hash is as registered ({tags[PREPROCESSING][:12]}…)", key=ROUND_TRIP)
    allowed = rule.when_not_stored == "allow"
    sentence = f"nothing is stored to compare with (the policy says: {rule.when_not_stored}); register it with `caco register`"
    return Finding(name, allowed, sentence, key=ROUND_TRIP)


def size(fetched: Fetched, rule: Size) -> Finding:
    """The file of weights and their number are within the budget."""
    weights = sum(parameter.numel() for parameter in fetched.encoder.backbone.parameters())
    fits = rule.max_parameters is None or weights <= rule.max_parameters
    limit = "" if rule.max_parameters is None else f", {rule.max_parameters / 1e6:g} million weights"
    sentence = (
        f"{fetched.megabytes:.1f} MB of weights, {weights / 1e6:.1f} million of them (at most {rule.max_mb:g} MB{limit} allowed)"
    )
    return Finding(
        "size", fetched.megabytes <= rule.max_mb and fits, sentence, fetched.megabytes, bound=rule.max_mb, key="size", unit="MB"
    )


def drift_tags(settings: Settings) -> dict[str, str]:
    """What the check of drift said of the data at hand, as tags; none where it did not run for this vintage.

    `recorded(…, "drift")` holds `vintage`, `reference` (none: nothing to compare with), `accepted` and `findings`.
    """
    try:
        facts = recorded(settings.paths.records, "drift").facts
    except UserError:
        return {}
    if facts.get("vintage", settings.vintage) != settings.vintage or ("reference" in facts and facts["reference"] is None):
        return {}
    person = f"accepted by {facts['accepted_by']}: {facts.get('reason')}" if facts.get("accepted_by") else ""
    found = "; ".join([*(str(line) for line in facts.get("findings", [])), *([person] if person else [])])
    return {DRIFT: "accepted" if facts["accepted"] else "refused", DRIFT_FINDINGS: found[:_LONGEST]}


def drift(tags: Mapping[str, str], rule: Drift) -> Finding:
    """The data did not drift from the vintage before, or the drift was accepted; as it stood at registration."""
    outcome = tags.get(DRIFT)
    if outcome is None:
        sentence = f"not measured: no drift check ran on the data of this version (the policy says: {rule.when_not_measured})"
        return Finding("drift accepted", rule.when_not_measured == "allow", sentence, key="drift")
    found = tags.get(DRIFT_FINDINGS) or "nothing noteworthy"
    return Finding("drift accepted", outcome == "accepted", f"{outcome}: {found}", key="drift")
