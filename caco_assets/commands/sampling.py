"""Commands of the room `sampling`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show


@click.command()
@profile_option
def sample(profile: str) -> None:
    """Sampling: draw the places."""
    from caco_assets.sampling.stage import sample as run

    show(run(settings_of(profile)))
