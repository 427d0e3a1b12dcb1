"""Asset checks of the data products: bad data stops the run."""

from pathlib import Path

import dagster as dg

from caco_assets.resources.dagster.metadata import page, table
from caco_assets.resources.profile import Profile
from caco_assets.validation.drift.drift import check_drift
from caco_assets.validation.stage import build_docs, validate

# product as the suites name it → the asset that carries the check
CHECKED = {"locations": "locations", "scenes": "scenes", "archive": "quarantine", "pack": "pack", "scores": "scores"}


def build_checks(without: str | None = None) -> list[dg.AssetChecksDefinition]:
    """One blocking check for each data product, except one that a profile does not make."""
    return [*(_check(product, asset) for product, asset in CHECKED.items() if product != without), vintage_has_not_drifted]


@dg.asset_check(asset="quarantine", blocking=True)
def vintage_has_not_drifted(profile: Profile) -> dg.AssetCheckResult:
    """Compares bands, land cover and cloudiness with the last accepted vintage."""
    settings = profile.settings()
    product, result = check_drift(settings)
    facts = product.facts
    shown = {"rules": table(facts["rules"])} if facts["rules"] else {}
    if result.evaluated:
        shown["data_docs"] = page(settings.paths.root, build_docs(settings))
    if facts["reference"] is None:
        words = "no earlier vintage has been accepted, so there is nothing to compare with"
    elif not facts["findings"]:
        words = f"every rule holds against vintage {facts['reference']}"
    elif facts["accepted"]:
        words = f"accepted by {facts['accepted_by']}: {facts['reason']} ({'; '.join(facts['findings'])})"
    else:
        words = "; ".join(facts["findings"]) + f"; if this is expected: caco drift --vintage {settings.vintage} --accept REASON"
    stops = settings.validation.drift.severity == "blocking"
    return dg.AssetCheckResult(
        passed=facts["accepted"],
        severity=dg.AssetCheckSeverity.ERROR if stops else dg.AssetCheckSeverity.WARN,
        description=words,
        metadata={"reference": str(facts["reference"]), **shown},
    )


def _check(product: str, asset: str) -> dg.AssetChecksDefinition:
    name = f"{product}_{'are' if product.endswith('s') else 'is'}_valid"

    @dg.asset_check(asset=asset, name=name, blocking=True, description=f"Validates {product}.")
    def check(profile: Profile) -> dg.AssetCheckResult:
        settings = profile.settings()
        result = validate(settings, product)
        docs: Path = build_docs(settings)
        return dg.AssetCheckResult(
            passed=result.success,
            severity=dg.AssetCheckSeverity.ERROR if result.blocking_failed else dg.AssetCheckSeverity.WARN,
            description="; ".join([*result.blocking_failed, *result.warnings]) or f"{result.evaluated} expectations hold",
            metadata={"expectations": table(result.table), "data_docs": page(settings.paths.root, docs)},
        )

    return check
