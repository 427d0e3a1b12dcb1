"""Commands of the room `pretraining`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show


@click.command()
@profile_option
def pack(profile: str) -> None:
    """Pretraining: build the pack that training reads."""
    from caco_assets.pretraining.stage import build_pack

    show(build_pack(settings_of(profile)))


@click.command()
@profile_option
def pretrain(profile: str) -> None:
    """Pretraining: train the encoder."""
    from caco_assets.pretraining.stage import pretrain as run

    show(run(settings_of(profile)))
