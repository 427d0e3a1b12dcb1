"""Commands of the room `evaluation`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show


@click.command()
@profile_option
def report(profile: str) -> None:
    """Evaluation: write the report."""
    from caco_assets.evaluation.stage import report as run

    show(run(settings_of(profile)))
