"""Summary printed by `make demo`: the scorecard, the report, the serving version and how to open the UIs."""

from __future__ import annotations

from caco_assets.settings import Settings


def summary(settings: Settings) -> str:
    """Plain text for the terminal.

    Raises:
        UserError: the chain has not run yet, or the registry cannot be read.
    """
    from caco_assets.evaluation.report.render import twin_rows
    from caco_assets.evaluation.scorecard import scorecard, scorecard_text
    from caco_assets.registry.versions import aliases
    from caco_assets.resources.mlflow.client import open_tracking

    model = settings.registry.model
    named = aliases(open_tracking(settings), model)
    versions = [f"models:/{model}@{alias} is version {version}" for alias, version in sorted(named.items())]
    return "\n".join(
        [
            "",
            scorecard_text(scorecard(settings.paths.scores, twins=twin_rows(settings))),
            "",
            f"report    {settings.paths.report / 'report.html'}",
            *[f"version   {line}" for line in versions],
            f"UIs       make up PROFILE={settings.profile}   (Dagster, MLflow, report and data docs; Ctrl-C stops them)",
        ]
    )
