"""Assets of the room `evaluation`."""

import dagster as dg

from caco_assets.downstream.assets import scores
from caco_assets.evaluation.stage import report as write_report
from caco_assets.recipes import recipe
from caco_assets.resources.describe import describe, page
from caco_assets.resources.profile import Profile


@dg.asset(group_name="evaluation", code_version=recipe("report"), deps=[scores], kinds={"html"})
def report(context: dg.AssetExecutionContext, profile: Profile) -> dg.MaterializeResult:
    """Scores beside published numbers, the data and its quarantine, training and lineage: one HTML file that opens from disk."""
    settings = profile.settings()
    product = write_report(settings, context.log.info)
    return describe(product, open=page(settings.paths.root, product.path / "report.html"))
