"""The Dagster asset of the report."""

import dagster as dg

from caco_assets.core.stage_versions import stage_version
from caco_assets.downstream.assets import scores
from caco_assets.evaluation.stage import report as write_report
from caco_assets.pretraining.assets import change_maps
from caco_assets.resources.dagster.metadata import describe, page
from caco_assets.resources.profile import Profile


@dg.asset(group_name="evaluation", code_version=stage_version("report"), deps=[scores, change_maps], kinds={"html"})
def report(profile: Profile) -> dg.MaterializeResult:
    """Scores beside published numbers, the data and its quarantine, training and lineage: one self-contained HTML file."""
    from caco_assets.evaluation.report.render import twin_rows
    from caco_assets.evaluation.scorecard import scorecard, scorecard_text

    settings = profile.settings()
    product = write_report(settings)
    text = scorecard_text(scorecard(settings.paths.scores, twins=twin_rows(settings)))
    return describe(
        product,
        open=page(settings.paths.root, product.path / "report.html"),
        scorecard=dg.MetadataValue.md(f"```\n{text}```"),
    )
