"""The stages of pretraining: build the pack from the archive, train the encoder on the pack, and map change with the encoder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, file_md5, fingerprint, produce, verify
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caco_assets.pretraining.launch.separate_process import Start
    from caco_assets.pretraining.training.metrics_log import MetricsSink


@dataclass(frozen=True)
class TrainingInputs:
    """The products that training reads."""

    pack: Product
    parent: Product | None = None
    """Encoder that a warm start begins with; required if `pretraining.warm_start` is set."""
    probe_set: Product | None = None
    """Scores the encoder during training without affecting its weights; required if `pretraining.probe_every` is set."""


def build_pack(settings: Settings, shards: Sequence[Product]) -> Product:
    """Make `pack/` from the archive: one stretch, one choice of bands, uint8, for random access.

    Args:
        settings: the profile.
        shards: all shards of the archive.

    Raises:
        UserError: there are no shards, the archive lacks a band, it holds no place with enough dates in both periods, or a shard is
            not what was recorded.
    """
    import pyarrow.parquet as pq

    from caco_assets.imagery.archive.shard import INDEX, iter_chips
    from caco_assets.pretraining.pack.build import build

    paths, imagery, wanted = settings.paths, settings.imagery, settings.pretraining
    if not shards:
        raise UserError(f"{paths.archive}: the archive is empty; ingest it first, or `caco demo`")
    read = tuple(band for band in imagery.bands if band in wanted.packed_bands)

    def make(target: Path) -> Facts:
        for shard in shards:
            # its checksums cover the chips, which are compared as they are read
            verify(paths.records, shard, INDEX)
        return build(
            iter_chips(paths.archive, read),
            target,
            bands=wanted.packed_bands,
            archive_bands=read,
            stretch=wanted.stretch,
            chip_size=imagery.chip_size,
            seasons=imagery.seasons,
            min_seasons=imagery.min_seasons,
            total=sum(pq.read_metadata(shard.path / INDEX).num_rows for shard in shards),
        )

    return produce(
        "pack",
        paths.pack,
        records=paths.records,
        recipe=stage_version("pack"),
        inputs={
            "archive": {shard.path.name: shard.content_hash for shard in shards},
            "archive_bands": imagery.bands,
            "chip_size": imagery.chip_size,
            "seasons": imagery.seasons,
            "min_seasons": imagery.min_seasons,
            "bands": list(wanted.packed_bands),
            "stretch": wanted.stretch,
        },
        make=make,
    )


def pretrain(settings: Settings, inputs: TrainingInputs, sinks: Sequence[MetricsSink] = (), start: Start | None = None) -> Product:
    """Make `encoder/` from the pack: self-supervised pretraining with the profile's objective.

    Args:
        settings: the profile.
        inputs: pack, parent and probe set.
        sinks: further receivers of the metrics beside `metrics.jsonl`.
        start: starts the training process (see `launch.separate_process`); default: according to `pretraining.launcher`.

    Raises:
        UserError: the parent is of another vintage, settings conflict with each other or the pack, or training has diverged.
        Stopped: on request, with a checkpoint.
    """
    from caco_assets.pretraining.launch.prometheus_sink import prometheus_sinks
    from caco_assets.pretraining.launch.separate_process import pretrain_in_subprocess
    from caco_assets.pretraining.training.run_config import RunConfig
    from caco_assets.pretraining.training.stop_request import stop_requests, this_process

    paths, options = settings.paths, settings.pretraining
    deciding = encoder_inputs(settings, inputs)
    parent, _ = starting_point(settings, inputs.parent)
    truth = paths.change_truth if paths.change_truth.exists() else None
    sinks = (*sinks, *prometheus_sinks(options.batch_size))

    def make(folder: Path) -> Facts:
        config = RunConfig(
            pack=inputs.pack.path,
            target=folder,
            seed=settings.seed,
            data=deciding["data"],
            pretraining=options,
            probe=inputs.probe_set.path if inputs.probe_set else None,
            parent=parent,
            truth=truth,
            starter=this_process(),
        )
        if start is not None or options.launcher != "inline":
            return pretrain_in_subprocess(config, sinks, start)
        from caco_assets.pretraining.training.pretrain import make_encoder

        with stop_requests() as stop:
            return make_encoder(config, sinks=sinks, stop=stop)

    # probe set and truth do not affect the weights: they are not part of the fingerprint
    return produce(
        "encoder",
        paths.encoder,
        records=paths.records,
        recipe=stage_version("encoder"),
        inputs=deciding,
        make=make,
    )


def map_changes(settings: Settings, pack: Product, encoder: Product, shards: Sequence[Product]) -> Product:
    """Make `change_maps/`: a change map, a score and a label for each place, from the trained encoder.

    Args:
        settings: the profile.
        pack: source of the pixels.
        encoder: makes the maps.
        shards: of the archive, for the maps' georeference.

    Raises:
        UserError: a product is missing, damaged, or not what was recorded.
    """
    from caco_assets.pretraining.change.ground_truth import MaskTruth
    from caco_assets.pretraining.change.map_product import write_change_maps
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.pack.format import Pack

    paths = settings.paths
    truth = MaskTruth.read(paths.change_truth) if paths.change_truth.exists() else None

    def make(folder: Path) -> Facts:
        shutil.rmtree(folder, ignore_errors=True)
        verify(paths.records, encoder)
        opened = Pack.open(pack.path)
        if not opened.is_named(pack.content_hash):
            # another pack, or one without checksums, of which only every byte can tell; else images are compared as they are read
            verify(paths.records, pack)
        return write_change_maps(
            folder,
            Encoder.load(encoder.path),
            opened,
            truth=truth,
            write_tar=lambda file, maps: _write_maps(file, maps, [shard.path for shard in shards]),
            seed=settings.seed,
        )

    return produce(
        "change_maps",
        paths.change_maps,
        records=paths.records,
        recipe=stage_version("change_maps"),
        inputs={
            "pack": pack.content_hash,
            "encoder": encoder.content_hash,
            "truth": None if truth is None else file_md5(paths.change_truth),
            "seed": settings.seed,
        },
        make=make,
    )


def _write_maps(path: Path, maps: Mapping[str, NDArray[np.float32]], shards: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Write a tar of GeoTIFFs, georeferenced as each place's first chip; returns offset and length of each."""
    from caco_assets.imagery.archive.chip import encode_map, grid_of
    from caco_assets.imagery.archive.shard import checked_members, read_index, write_tar
    from caco_assets.pretraining.change.change_map import STRIDE

    members: dict[str, bytes] = {}
    for shard in shards:
        rows = read_index(shard, ["id", "location_id", "offset", "length", "sha256"]).to_pylist()
        first = {row["location_id"]: row for row in reversed(rows) if row["location_id"] in maps}
        ordered = sorted(first.values(), key=lambda row: row["offset"])
        for row, data in zip(ordered, checked_members(shard, ordered), strict=True):
            cells, grid = maps[row["location_id"]], grid_of(data)
            if grid is not None:
                coarse = replace(grid, size=len(cells), resolution=grid.resolution * STRIDE)
                members[row["location_id"]] = encode_map(cells, coarse)
    ranges = write_tar(path, ((f"{name}.tif", data) for name, data in members.items()))
    return {name: (offset, length) for name, (offset, length, _) in zip(members, ranges, strict=True)}


def encoder_inputs(settings: Settings, inputs: TrainingInputs) -> dict[str, Any]:
    """All inputs that decide the encoder, for its fingerprint.

    Raises:
        UserError: see `starting_point`.
    """
    from caco_assets.pretraining.training.run_config import training_config

    data = {
        "profile": settings.profile,
        "vintage": settings.vintage,
        "gap_years": settings.gap_years,
        "pack": inputs.pack.content_hash,
        "places": inputs.pack.facts.get("places"),
        **starting_point(settings, inputs.parent)[1],
    }
    return {"data": data, **training_config(settings.pretraining, settings.seed)}


def starting_point(settings: Settings, parent: Product | None) -> tuple[Path | None, dict[str, Any]]:
    """The folder of the encoder to start from and its identifying fields, from the product `parent`.

    Returns:
        The folder, and the fields for the encoder's `data`; None and no fields if training starts from scratch.

    Raises:
        UserError: the profile needs a warm start, and the parent is missing or of another vintage.
    """
    if settings.pretraining.warm_start == "none":
        return None, {}
    vintage = parent.facts["vintage"] if parent else "none"
    if parent is None or vintage != settings.vintage:
        raise UserError(f"parent: of vintage {vintage}, wanted is {settings.vintage}; run `caco parent`, or materialize `parent`")
    if parent.facts["uri"] is None:
        return None, {}
    return parent.path, {"parent": {"uri": parent.facts["uri"], "identity": parent.facts["identity"]}}


def tracked_run(settings: Settings, inputs: TrainingInputs) -> Path:
    """The file with the id of an encoder's MLflow run; it is kept until the run is finished, which may be after the encoder is."""
    digest = fingerprint(stage_version("encoder"), encoder_inputs(settings, inputs))
    path = settings.paths.encoder
    return path.with_name(f".{path.name}.run-{digest[:12]}")
