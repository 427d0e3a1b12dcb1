"""From a pack to an encoder: checks, training, and the files that the product consists of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.pretraining import distributed
from caco_assets.pretraining.change.estimate import ChangeState
from caco_assets.pretraining.change.ground_truth import ChangeTruth
from caco_assets.pretraining.change.product import write_change
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.warm_start import begin_with
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.objectives import FIDELITY, ObjectiveConfig, build, objective_class
from caco_assets.pretraining.objectives.change_aware import ChangeAware
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.training.best_encoder import keep_best
from caco_assets.pretraining.training.collapse import COLLAPSED_BELOW
from caco_assets.pretraining.training.compiled import compile_encoders
from caco_assets.pretraining.training.divergence import BAD_BATCH, Diverged, write_bad_batch
from caco_assets.pretraining.training.fabric import join, share_of_cores
from caco_assets.pretraining.training.loop import CHECKPOINT, METRICS, pick_device, train
from caco_assets.pretraining.training.metrics_log import MetricsSink, draw_loss_curve, read_metrics
from caco_assets.pretraining.training.online_probe import load_probe
from caco_assets.pretraining.training.run_config import recipe_of
from caco_assets.pretraining.training.run_state import DONE, finished, training_lock, write_outcome
from caco_assets.pretraining.training.stop_request import StopRequest
from caco_assets.settings import Pretraining

__all__ = ["make_encoder", "open_loader", "recipe_of"]

if TYPE_CHECKING:
    from caco_assets.pretraining.loading.cpu_loader import Loader
    from caco_assets.pretraining.loading.gpu_loader import DeviceLoader

logger = logging.getLogger(__name__)


def make_encoder(
    pack: Path,
    folder: Path,
    options: Pretraining,
    *,
    seed: int,
    data: dict[str, Any],
    sinks: Sequence[MetricsSink] = (),
    probe: Path | None = None,
    truth: Path | None = None,
    stop: StopRequest | None = None,
    parent: Path | None = None,
) -> Facts:
    """Pretrain on the pack at `pack` and fill `folder`; goes on from what an interrupted call left there.

    Args:
        pack: see `pack.build`.
        folder: gets `encoder.safetensors`, `encoder.json`, `metrics.jsonl`, `loss_curve.png` and, for objectives that estimate
            change, the files of `change_product`.
        options: the profile's section.
        seed: of everything random.
        data: what the encoder is trained on, for `encoder.json`.
        sinks: further takers of the figures.
        probe: the probe set that judges the encoder each `options.probe_every` epochs (see `online_probe`).
        truth: table of true change (see `change_truth`), for figures alone: the weights are the same without it.
        stop: asked after each step; then a checkpoint is written.
        parent: folder of an encoder whose weights training begins with; it stands in `data`. None: random ones of the seed.

    Returns:
        Facts of the product; of several processes the first alone has them, and writes.

    Raises:
        UserError: settings that cannot work (before the first step), another training is at work in `folder`, or training has
            diverged or does not fit into memory.
        Stopped: on request, with a checkpoint.
    """
    join(options)
    with training_lock(folder) if distributed.rank() == 0 else nullcontext():
        return finished(folder, recipe_of(options, seed), data) or _make(
            pack, folder, options, seed, data, sinks, probe, truth, stop, parent
        )


def _make(
    pack: Path,
    folder: Path,
    options: Pretraining,
    seed: int,
    data: dict[str, Any],
    sinks: Sequence[MetricsSink],
    probe: Path | None,
    truth: Path | None,
    stop: StopRequest | None,
    parent: Path | None,
) -> Facts:
    if options.probe_every and probe is None:
        raise UserError(
            f"pretraining.probe_every={options.probe_every}: no probe is passed to this run; set it to 0, or name a task"
        )
    loader = open_loader(pack, options, seed)
    opened = Pack.open(pack)
    known = ChangeTruth.read(truth, opened.location_id) if truth else None
    judge = load_probe(probe, options.backbone, loader.sampler.preprocessing) if probe and options.probe_every else None
    encoder = Encoder.random(options.backbone, loader.sampler.preprocessing, seed)
    if parent is not None:
        begin_with(encoder, parent)
    config = ObjectiveConfig(
        slots=2 * loader.sampler.places,
        embedding_dim=options.embedding_dim,
        queue_size=options.queue_size,
        temperature=options.temperature,
        momentum=options.momentum,
        ema_beta=options.ema_beta,
        change_estimate=options.change_estimate,
        switches=replace(FIDELITY[options.fidelity], squared_distances=options.squared_distances),
        geo_clusters=options.geo_clusters,
        lonlat=loader.sampler.lonlat,
    )
    objective = build(options.objective, config, encoder.backbone, features=encoder.width, seed=seed)
    if options.compile:
        compile_encoders(objective)
    state = getattr(objective, "change", None)
    if known and isinstance(state, ChangeState):
        state.judge = known.figures
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(options, seed)
    (folder / BAD_BATCH).unlink(missing_ok=True)
    # `seed` decides weights and views alike, but through unrelated streams: numpy's for the views, torch's for the weights
    given = {"seed": seed, "folder": folder, "recipe": recipe, "sinks": sinks, "probe": judge, "stop": stop}
    try:
        train(objective, loader, options, **given)
    except Diverged as error:
        if distributed.rank() == 0:
            write_bad_batch(folder, error.bad, loader.sampler, opened.location_id, seed)
        raise UserError(f"{error}; its places and dates are in {folder / BAD_BATCH}") from error
    if distributed.rank() > 0:
        return {}
    encoder.save(folder, recipe, data)
    keep_best(folder, encoder, recipe, data)
    lines = read_metrics(folder / METRICS)
    facts = _facts(lines, loader.sampler.places)
    draw_loss_curve(folder / "loss_curve.png", lines)
    if facts["collapsed"]:
        logger.info(
            f"pretrain: WARNING: embeddings have collapsed (spread {facts['embedding_std']:.3f} of 1); the encoder is of no use"
        )
    if isinstance(state, ChangeState):
        facts |= write_change(folder, state, opened, known)
    write_outcome(folder, DONE, facts=facts)
    # last of all: until here an interrupted call can be repeated at no cost
    (folder / CHECKPOINT).unlink()
    return facts


def open_loader(pack: Path, options: Pretraining, seed: int) -> Loader | DeviceLoader:
    """Check objective, queue, device and pack against each other, and open the pack on the device where training happens.

    Raises:
        UserError: they do not fit; names the setting, its value and the way out.
    """
    kind = objective_class(options.objective)
    accelerator, _ = pick_device(options)
    if kind.queued and options.queue_size % options.batch_size:
        below = max(options.queue_size // options.batch_size, 1) * options.batch_size
        raise UserError(
            f"pretraining.queue_size={options.queue_size}: must be a multiple of batch_size={options.batch_size} "
            f"(the queue holds whole batches); set it to {below}"
        )
    if options.aligned_seasons and not issubclass(kind, ChangeAware):
        raise UserError(
            f"pretraining.aligned_seasons=true: objective {options.objective} has no long-term distance; "
            "set it to false, or choose caco or simclr_caco"
        )
    sampler = Sampler(
        pack,
        replace(kind.plan, aligned=options.aligned_seasons, blur=options.blur_sigma),
        batch_size=options.batch_size,
        image_size=options.image_size,
        crop_scale=options.crop_scale,
        seed=seed,
        bands=options.bands,
        part=(distributed.rank(), distributed.size()),
    )
    packed = sampler.preprocessing.stretch.name
    if options.stretch != packed:
        raise UserError(f"pretraining.stretch={options.stretch}: the pack has {packed}; build the pack again, or set it to that")
    threads = share_of_cores(options)
    if accelerator == "cuda":
        from caco_assets.pretraining.loading.gpu_loader import DeviceLoader

        return DeviceLoader(sampler, memory=options.pack_on_gpu, threads=threads, compiled=options.compile)
    from caco_assets.pretraining.loading.cpu_loader import Loader

    return Loader(sampler, threads=threads)


def _facts(lines: list[dict[str, Any]], places: int) -> Facts:
    last = next(line for line in reversed(lines) if "epoch_loss" in line)
    speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
    facts: Facts = {
        "loss": last["epoch_loss"],
        "accuracy": last["epoch_accuracy_0"],
        "epochs": last["epoch"] + 1,
        "steps": last["step"],
        "places": places,
        "images_per_s": float(np.median(speeds)) if speeds else 0.0,
        "embedding_std": last["epoch_embedding_std"],
        "collapsed": last["epoch_embedding_std"] < COLLAPSED_BELOW,
    }
    facts |= {name: last[name] for name in ("queue_rank", "queue_cosine") if name in last}
    probes = [line["probe"] for line in lines if "probe" in line]
    return {**facts, "probe": probes[-1]} if probes else facts
