"""Rules about the registered artifact: it loads, preprocesses as before, is small enough, and its data has not drifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product
from caco_assets.registry.package.mlflow_model import Fetched, fetch, preprocessing_hash
from caco_assets.registry.promotion.decision import Finding
from caco_assets.registry.promotion.policy import Drift, RoundTrip, Size
from caco_assets.registry.versions import IDENTITY
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PREPROCESSING = "preprocessing_sha256"
"""Tag: `mlflow_model.preprocessing_hash` at registration."""
DRIFT = "drift"
"""Tag: `accepted` or `refused`, the result of comparing its data with the previous vintage; absent: not measured."""
DRIFT_FINDINGS = "drift.findings"
"""Tag: the findings of that comparison, on one line."""
LOADS, ROUND_TRIP = "loads", "round_trip"
"""Keys of findings that cannot be overridden."""
_MAX_FINDINGS = 1000


def loads(tracking: Tracking, version: ModelVersion) -> tuple[Finding, Fetched | None]:
    """Whether the registered files give back the weights and preprocessing that were registered.

    Raises:
        ServerAwayError: unknown for now; a champion must not lose to a server that restarts.
    """
    name, tags = "artifact loads", version.tags
    try:
        fetched = fetch(tracking, version)
    except ServerAwayError:
        raise
    except UserError as error:
        return Finding(name, False, str(error), key=LOADS), None
    encoder = fetched.encoder
    for tag, value in ((IDENTITY, encoder.identity), (PREPROCESSING, preprocessing_hash(encoder))):
        if tags.get(tag, value) != value:
            return Finding(name, False, f"{tag} is {value[:12]}…, registered as {tags[tag][:12]}…", key=LOADS), None
    known = "weights and preprocessing as registered" if IDENTITY in tags else "weights and preprocessing are intact"
    return Finding(name, True, f"{known} ({encoder.identity[:12]}…)", key=LOADS), fetched


def round_trip(fetched: Fetched, tags: Mapping[str, str], rule: RoundTrip) -> Finding:
    """Whether the preprocessing of the stored image gives the same tensor as before registration, bit for bit."""
    name = "preprocessing round trip"
    if fetched.round_trip is not None:
        result = "the same tensor as before registration, bit for bit"
        sentence = f"the stored image gives {result if fetched.round_trip else 'another tensor than before registration'}"
        return Finding(name, fetched.round_trip, sentence, key=ROUND_TRIP)
    if PREPROCESSING in tags:
        # `loads` has compared it
        return Finding(name, True, f"no image is stored; the hash is as registered ({tags[PREPROCESSING][:12]}…)", key=ROUND_TRIP)
    allowed = rule.when_not_stored == "allow"
    sentence = f"no image and no hash are stored (policy: {rule.when_not_stored}); register it with `caco register`"
    return Finding(name, allowed, sentence, key=ROUND_TRIP)


def size(fetched: Fetched, rule: Size) -> Finding:
    """Whether the weights file and the number of weights are within the limits."""
    weights = sum(parameter.numel() for parameter in fetched.encoder.backbone.parameters())
    fits = rule.max_parameters is None or weights <= rule.max_parameters
    limit = "" if rule.max_parameters is None else f", {rule.max_parameters / 1e6:g} million weights"
    sentence = f"{fetched.megabytes:.1f} MB, {weights / 1e6:.1f} million weights (at most {rule.max_mb:g} MB{limit})"
    return Finding(
        "size", fetched.megabytes <= rule.max_mb and fits, sentence, fetched.megabytes, bound=rule.max_mb, key="size", unit="MB"
    )


def drift_tags(check: Product | None, vintage: str) -> dict[str, str]:
    """The result of the drift check of a vintage as tags; none if it did not run for this vintage or had no reference.

    The facts of the product `drift` are `vintage`, `reference` (None: nothing to compare with), `accepted` and `findings`.
    """
    facts: Facts = check.facts if check is not None else {"reference": None}
    if facts.get("vintage", vintage) != vintage or ("reference" in facts and facts["reference"] is None):
        return {}
    acceptance = f"accepted by {facts['accepted_by']}: {facts.get('reason')}" if facts.get("accepted_by") else ""
    found = "; ".join([*(str(line) for line in facts.get("findings", [])), *([acceptance] if acceptance else [])])
    return {DRIFT: "accepted" if facts["accepted"] else "refused", DRIFT_FINDINGS: found[:_MAX_FINDINGS]}


def drift(tags: Mapping[str, str], rule: Drift) -> Finding:
    """Whether the training data had not drifted, or the drift was accepted, when the version was registered."""
    outcome = tags.get(DRIFT)
    if outcome is None:
        sentence = f"not measured: no drift check ran on the data of this version (policy: {rule.when_not_measured})"
        return Finding("drift accepted", rule.when_not_measured == "allow", sentence, key="drift")
    found = tags.get(DRIFT_FINDINGS) or "no findings"
    return Finding("drift accepted", outcome == "accepted", f"{outcome}: {found}", key="drift")
