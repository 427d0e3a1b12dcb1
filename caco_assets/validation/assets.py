"""Asset checks of the room `validation`: bad data does not pass."""

from pathlib import Path

import dagster as dg

from caco_assets.resources.describe import page, table
from caco_assets.resources.profile import Profile
from caco_assets.validation.stage import build_docs, validate

# product as the suites name it → the asset that carries the check
CHECKED = {"locations": "locations", "scenes": "scenes", "archive": "quarantine", "pack": "pack", "scores": "scores"}


def build_checks(without: str | None = None) -> list[dg.AssetChecksDefinition]:
    """One blocking check for each data product, but for the one that a profile does not make."""
    return [_check(product, asset) for product, asset in CHECKED.items() if product != without]


def _check(product: str, asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=f"{product}_are_sound", blocking=True, description=f"Great Expectations suite of {product}.")
    def check(context: dg.AssetCheckExecutionContext, profile: Profile) -> dg.AssetCheckResult:
        settings = profile.settings()
        result = validate(settings, product, context.log.info)
        docs: Path = build_docs(settings)
        return dg.AssetCheckResult(
            passed=result.success,
            severity=dg.AssetCheckSeverity.ERROR if result.blocking_failed else dg.AssetCheckSeverity.WARN,
            description="; ".join([*result.blocking_failed, *result.warnings]) or f"{result.evaluated} expectations hold",
            metadata={"expectations": table(result.table), "data_docs": page(settings.paths.root, docs)},
        )

    return check
