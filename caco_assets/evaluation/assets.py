"""Assets of the room `evaluation`."""

import dagster as dg

from caco_assets.downstream.assets import scores
from caco_assets.evaluation.stage import report as write_report
from caco_assets.recipes import recipe
from caco_assets.resources.describe import describe
from caco_assets.resources.profile import Profile


@dg.asset(group_name="evaluation", code_version=recipe("report"), deps=[scores], kinds={"html"})
def report(context: dg.AssetExecutionContext, profile: Profile) -> dg.MaterializeResult:
    """Scores beside published numbers, the data and its quarantine, training and lineage: one HTML file that opens from disk."""
    product = write_report(profile.settings(), context.log.info)
    page = product.path / "report.html"
    return describe(product, page=dg.MetadataValue.path(str(page)), open=dg.MetadataValue.url(page.as_uri()))
