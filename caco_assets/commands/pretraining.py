"""Commands of the room `pretraining`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show


@click.command()
@profile_option
def pack(profile: str) -> None:
    """Pretraining: build the pack that training reads."""
    from caco_assets.pretraining.on_record import archive_shards
    from caco_assets.pretraining.stage import build_pack

    settings = settings_of(profile)
    show(build_pack(settings, archive_shards(settings)))


@click.command()
@profile_option
def pretrain(profile: str) -> None:
    """Pretraining: train the encoder."""
    from caco_assets.pretraining.on_record import training_inputs
    from caco_assets.pretraining.stage import pretrain as run

    settings = settings_of(profile)
    show(run(settings, training_inputs(settings)))


@click.command("change-maps")
@profile_option
def change_maps(profile: str) -> None:
    """Pretraining: map the change of every place with the encoder."""
    from caco_assets.core.products import recorded
    from caco_assets.pretraining.on_record import archive_shards
    from caco_assets.pretraining.stage import map_changes

    settings = settings_of(profile)
    pack, encoder = (recorded(settings.paths.records, name) for name in ("pack", "encoder"))
    show(map_changes(settings, pack, encoder, archive_shards(settings)))
