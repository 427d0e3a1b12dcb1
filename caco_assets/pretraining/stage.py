"""The two stages of pretraining: the archive becomes a pack, the pack becomes an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, fingerprint, produce, recorded
from caco_assets.core.stage_versions import recipe
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.pretraining.launch.separate_process import Start
    from caco_assets.pretraining.training.metrics_log import MetricsSink


def build_pack(settings: Settings) -> Product:
    """Make `pack/` from the archive: one stretch, one choice of bands, uint8, ready to be read in any order.

    Raises:
        UserError: the archive is not complete, lacks a band, or holds no place with enough dates in both periods.
    """
    import pyarrow.parquet as pq

    from caco_assets.imagery.archive.shard import iter_chips
    from caco_assets.pretraining.pack.build import build

    paths, imagery, wanted = settings.paths, settings.imagery, settings.pretraining
    shards = sorted(paths.archive.glob("shard=*"))
    if not shards:
        raise UserError(f"{paths.archive}: the archive is empty; ingest it first, or `caco demo`")
    read = tuple(band for band in imagery.bands if band in wanted.packed_bands)
    archive = {shard.name: recorded(paths.records, f"archive/{shard.name}").content_hash for shard in shards}
    return produce(
        "pack",
        paths.pack,
        records=paths.records,
        recipe=recipe("pack"),
        inputs={
            "archive": archive,
            "archive_bands": imagery.bands,
            "chip_size": imagery.chip_size,
            "seasons": imagery.seasons,
            "min_seasons": imagery.min_seasons,
            "bands": list(wanted.packed_bands),
            "stretch": wanted.stretch,
        },
        make=lambda target: build(
            iter_chips(paths.archive, read),
            target,
            bands=wanted.packed_bands,
            archive_bands=read,
            stretch=wanted.stretch,
            chip_size=imagery.chip_size,
            seasons=imagery.seasons,
            min_seasons=imagery.min_seasons,
            total=sum(pq.read_metadata(shard / "chips.parquet").num_rows for shard in shards),
        ),
    )


def pretrain(settings: Settings, sinks: Sequence[MetricsSink] = (), start: Start | None = None) -> Product:
    """Make `encoder/` from the pack: self-supervised pretraining with the profile's objective.

    Args:
        settings: the profile.
        sinks: further takers of the figures beside `metrics.jsonl`.
        start: of the process that trains (see `apart`); default: as `pretraining.launcher` says.

    Raises:
        UserError: there is no pack, nobody has looked yet what to begin with, settings do not fit each other or the pack, or
            training has diverged.
        Stopped: on request, with a checkpoint.
    """
    from caco_assets.pretraining.launch.prometheus_sink import watched
    from caco_assets.pretraining.launch.separate_process import make_encoder_apart
    from caco_assets.pretraining.training.run_config import RunConfig
    from caco_assets.pretraining.training.stop_request import stop_requests, this_process

    paths, options = settings.paths, settings.pretraining
    inputs = encoder_inputs(settings)
    parent, _ = starting_point(settings)
    probe = recorded(paths.records, "probe_set").path if options.probe_every and options.probe_task else None
    truth = paths.change_truth if paths.change_truth.exists() else None

    sinks = (*sinks, *watched(options.batch_size))

    def make(folder: Path) -> Facts:
        config = RunConfig(
            pack=paths.pack,
            target=folder,
            seed=settings.seed,
            data=inputs["data"],
            pretraining=options,
            probe=probe,
            parent=parent,
            truth=truth,
            starter=this_process(),
        )
        if start is not None or options.launcher != "inline":
            return make_encoder_apart(config, sinks, start)
        from caco_assets.pretraining.training.pretrain import make_encoder

        with stop_requests() as stop:
            return make_encoder(config, sinks=sinks, stop=stop)

    # probe set and truth are looked at, not trained on: they decide no weight and are no inputs
    return produce(
        "encoder",
        paths.encoder,
        records=paths.records,
        recipe=recipe("encoder"),
        inputs=inputs,
        make=make,
    )


def encoder_inputs(settings: Settings) -> dict[str, Any]:
    """Everything that decides the encoder.

    Raises:
        UserError: there is no pack, or nobody has looked yet what to begin with.
    """
    from caco_assets.pretraining.training.run_config import training_config

    pack = recorded(settings.paths.records, "pack")
    data = {
        "profile": settings.profile,
        "vintage": settings.vintage,
        "gap_years": settings.gap_years,
        "pack": pack.content_hash,
        "places": pack.facts.get("places"),
        **starting_point(settings)[1],
    }
    return {"data": data, **training_config(settings.pretraining, settings.seed)}


def starting_point(settings: Settings) -> tuple[Path | None, dict[str, Any]]:
    """The folder to begin with and what names it, as the product `parent` holds them.

    Returns:
        The folder, and the fields that go into the encoder's `data`: none of both where training begins from scratch.

    Raises:
        UserError: the profile wants a warm start, and nobody has looked yet what this vintage begins with.
    """
    if settings.pretraining.warm_start == "none":
        return None, {}
    found = recorded(settings.paths.records, "parent")
    if found.facts["vintage"] != settings.vintage:
        raise UserError(
            f"parent: of vintage {found.facts['vintage']}, wanted is {settings.vintage}; run `caco parent`, or materialize `parent`"
        )
    if found.facts["uri"] is None:
        return None, {}
    return found.path, {"parent": {"uri": found.facts["uri"], "identity": found.facts["identity"]}}


def tracked_run(settings: Settings) -> Path:
    """The file that remembers the MLflow run of an encoder until that run is finished, which may be after the encoder is."""
    mark = fingerprint(recipe("encoder"), encoder_inputs(settings))
    path = settings.paths.encoder
    return path.with_name(f".{path.name}.run-{mark[:12]}")
