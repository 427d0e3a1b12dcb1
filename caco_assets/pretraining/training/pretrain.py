"""Trains an encoder from a pack: checks, training, and the files of the product."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, content_hash
from caco_assets.pretraining import distributed
from caco_assets.pretraining.change.estimate import ChangeState
from caco_assets.pretraining.change.ground_truth import ChangeTruth
from caco_assets.pretraining.change.product import write_change
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.warm_start import begin_with
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.objectives import FIDELITY, Objective, ObjectiveConfig, build, objective_class
from caco_assets.pretraining.objectives.change_aware import ChangeAware
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.training.best_encoder import keep_best
from caco_assets.pretraining.training.collapse import COLLAPSED_BELOW
from caco_assets.pretraining.training.compiled import compile_encoders
from caco_assets.pretraining.training.divergence import BAD_BATCH, Diverged, write_bad_batch
from caco_assets.pretraining.training.fabric import join, share_of_cores
from caco_assets.pretraining.training.loop import CHECKPOINT, CHECKPOINT_BEFORE, METRICS, pick_device, train
from caco_assets.pretraining.training.metrics_log import MetricsSink, draw_loss_curve, read_metrics
from caco_assets.pretraining.training.online_probe import load_probe
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import DONE, finished, training_lock, write_outcome
from caco_assets.pretraining.training.stop_request import StopRequest

if TYPE_CHECKING:
    from caco_assets.pretraining.loading.cpu_loader import Loader
    from caco_assets.pretraining.loading.gpu_loader import DeviceLoader

logger = logging.getLogger(__name__)


def make_encoder(config: RunConfig, *, sinks: Sequence[MetricsSink] = (), stop: StopRequest | None = None) -> Facts:
    """Pretrain and fill `config.target`; resumes an interrupted call.

    Args:
        config: the target receives `encoder.safetensors`, `encoder.json`, `metrics.jsonl`, `loss_curve.png` and, for objectives
            that estimate change, the files of `change.product`.
        sinks: further receivers of the metrics.
        stop: checked after each step; if set, a checkpoint is written.

    Returns:
        Facts of the product; only rank 0 has them and writes.

    Raises:
        UserError: the settings cannot work (before the first step), another training is running in the target, or training has
            diverged or does not fit into memory.
        Stopped: on request, with a checkpoint.
    """
    join(config.pretraining)
    with training_lock(config.target) if distributed.rank() == 0 else nullcontext():
        return finished(config.target, config.training_config, config.data) or _make(config, sinks, stop)


def _make(config: RunConfig, sinks: Sequence[MetricsSink], stop: StopRequest | None) -> Facts:
    options, folder = config.pretraining, config.target
    if options.probe_every and config.probe is None:
        raise UserError(
            f"pretraining.probe_every={options.probe_every}: no probe is passed to this run; set it to 0, or name a task"
        )
    loader = open_loader(config)
    sampler = loader.sampler
    truth = ChangeTruth.read(config.truth, sampler.pack.location_id) if config.truth else None
    probe = None
    if config.probe and options.probe_every:
        probe = load_probe(config.probe, options.backbone, sampler.preprocessing)
    encoder = Encoder.random(options.backbone, sampler.preprocessing, config.seed)
    if config.parent is not None:
        begin_with(encoder, config.parent)
    objective = _objective(config, sampler, encoder)
    change = getattr(objective, "change", None)
    if truth and isinstance(change, ChangeState):
        change.judge = truth.figures
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BAD_BATCH).unlink(missing_ok=True)
    try:
        train(objective, loader, config, sinks=sinks, probe=probe, stop=stop)
    except Diverged as error:
        if distributed.rank() == 0:
            write_bad_batch(folder, error.bad, sampler, config.seed)
        raise UserError(f"{error}; its places and dates are in {folder / BAD_BATCH}") from error
    if distributed.rank() > 0:
        return {}
    encoder.save(folder, config.training_config, config.data)
    keep_best(folder, encoder, config.training_config, config.data)
    lines = read_metrics(folder / METRICS)
    facts = _facts(lines, sampler.places)
    draw_loss_curve(folder / "loss_curve.png", lines)
    if facts["collapsed"]:
        logger.warning(
            f"pretrain: embeddings have collapsed (spread {facts['embedding_std']:.3f} of 1); the encoder cannot be used"
        )
    if isinstance(change, ChangeState):
        facts |= write_change(folder, change, sampler.pack, truth)
    write_outcome(folder, DONE, facts=facts)
    # last: before this line an interrupted call can be repeated at no cost
    (folder / CHECKPOINT_BEFORE).unlink(missing_ok=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return facts


def _objective(config: RunConfig, sampler: Sampler, encoder: Encoder) -> Objective:
    options = config.pretraining
    settings = ObjectiveConfig(
        slots=2 * sampler.places,
        embedding_dim=options.embedding_dim,
        queue_size=options.queue_size,
        temperature=options.temperature,
        momentum=options.momentum,
        ema_beta=options.ema_beta,
        change_estimate=options.change_estimate,
        switches=replace(FIDELITY[options.fidelity], squared_distances=options.squared_distances),
        geo_clusters=options.geo_clusters,
        lonlat=sampler.lonlat,
    )
    # one seed for weights and views, but in unrelated streams: numpy's for the views, torch's for the weights
    objective = build(options.objective, settings, encoder.backbone, features=encoder.width, seed=config.seed)
    if options.compile:
        compile_encoders(objective)
    return objective


def open_loader(config: RunConfig) -> Loader | DeviceLoader:
    """Check objective, queue, device and pack for consistency, and open the pack for the training device.

    Raises:
        UserError: they are inconsistent; names the setting, its value and a solution.
    """
    options = config.pretraining
    objective = objective_class(options.objective)
    accelerator, _ = pick_device(options)
    if objective.queued and options.queue_size % options.batch_size:
        below = max(options.queue_size // options.batch_size, 1) * options.batch_size
        raise UserError(
            f"pretraining.queue_size={options.queue_size}: must be a multiple of batch_size={options.batch_size} "
            f"(the queue holds whole batches); set it to {below}"
        )
    if options.aligned_seasons and not issubclass(objective, ChangeAware):
        raise UserError(
            f"pretraining.aligned_seasons=true: objective {options.objective} has no long-term distance; "
            "set it to false, or choose caco or simclr_caco"
        )
    sampler = Sampler(
        config.pack,
        replace(objective.plan, aligned=options.aligned_seasons, blur=options.blur_sigma),
        batch_size=options.batch_size,
        image_size=options.image_size,
        crop_scale=options.crop_scale,
        seed=config.seed,
        bands=options.bands,
        part=(distributed.rank(), distributed.size()),
    )
    _verify_pack(sampler.pack, config)
    packed = sampler.preprocessing.stretch.name
    if options.stretch != packed:
        raise UserError(f"pretraining.stretch={options.stretch}: the pack has {packed}; build the pack again, or set it to that")
    threads = share_of_cores(options)
    if accelerator == "cuda":
        from caco_assets.pretraining.loading.gpu_loader import DeviceLoader

        return DeviceLoader(sampler, memory=options.pack_on_gpu, threads=threads, compiled=options.compile)
    from caco_assets.pretraining.loading.cpu_loader import Loader

    return Loader(sampler, threads=threads)


def _verify_pack(pack: Pack, config: RunConfig) -> None:
    """Check that the pack is the one that `config.data` names; its images are compared as they are read.

    Raises:
        UserError: it is another one.
    """
    content = config.data.get("pack")
    named = pack.is_named(content) if content else True
    if pack.sums is None and distributed.rank() == 0:
        how = "every byte is compared now, once" if content else "and CONFIG names no content hash: they are not verified"
        logger.warning(f"{pack.folder}: built without checksums of its images, {how}; a pack that is built again has them")
    if named is None:
        # the other processes read the same files
        named = distributed.rank() > 0 or content_hash(pack.folder) == content
    if not named:
        raise UserError(
            f"{pack.folder}: is not the pack {content} that this training is recorded to read; delete the folder and run "
            "`caco pack`, or restore it from DVC"
        )


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
