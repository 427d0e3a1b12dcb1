"""Looks up the recorded products that the stages of pretraining read, for commands and assets."""

from __future__ import annotations

from dataclasses import replace

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, recorded, verify
from caco_assets.pretraining.stage import TrainingInputs
from caco_assets.settings import Settings


def archive_shards(settings: Settings) -> list[Product]:
    """The shards of the archive, in order; empty before the first is ingested.

    Raises:
        UserError: a shard is incomplete, or a recorded one is missing.
    """
    paths = settings.paths
    names = {shard.name for shard in paths.archive.glob("shard=*")}
    names |= {record.stem for record in (paths.records / "archive").glob("shard=*.json")}
    shards = [recorded(paths.records, f"archive/{name}") for name in sorted(names)]
    if lost := [shard.path for shard in shards if not shard.path.is_dir()]:
        raise UserError(
            f"{lost[0]}: missing, with {len(lost)} of {len(shards)} recorded shards of the archive; `caco ingest` makes them "
            "again, or restore the folder from DVC or a backup"
        )
    return shards


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
        UserError: one of them does not exist yet, or is not what was recorded (the pack is verified as training reads it).
    """
    inputs, options, records = encoder_inputs_on_record(settings), settings.pretraining, settings.paths.records
    if options.probe_every and options.probe_task:
        inputs = replace(inputs, probe_set=recorded(records, "probe_set"))
    for product in (inputs.parent, inputs.probe_set):
        if product is not None:
            verify(records, product)
    return inputs
