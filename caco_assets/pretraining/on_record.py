"""Looks up the recorded products that the stages of pretraining read, for commands and assets."""

from __future__ import annotations

from dataclasses import replace

from caco_assets.core.products import Product, recorded
from caco_assets.pretraining.stage import TrainingInputs
from caco_assets.settings import Settings


def archive_shards(settings: Settings) -> list[Product]:
    """The shards of the archive, in order; empty before the first is ingested.

    Raises:
        UserError: a shard is incomplete.
    """
    paths = settings.paths
    return [recorded(paths.records, f"archive/{shard.name}") for shard in sorted(paths.archive.glob("shard=*"))]


def encoder_inputs_on_record(settings: Settings) -> TrainingInputs:
    """The inputs that decide the encoder: the pack and, for a warm start, the parent.

    Raises:
        UserError: one of them does not exist yet.
    """
    records = settings.paths.records
    parent = None if settings.pretraining.warm_start == "none" else recorded(records, "parent")
    return TrainingInputs(pack=recorded(records, "pack"), parent=parent)


def training_inputs(settings: Settings) -> TrainingInputs:
    """All inputs of training: those that decide the encoder, and the probe set if the profile uses one.

    Raises:
        UserError: one of them does not exist yet.
    """
    inputs, options = encoder_inputs_on_record(settings), settings.pretraining
    probed = options.probe_every and options.probe_task
    return replace(inputs, probe_set=recorded(settings.paths.records, "probe_set")) if probed else inputs
