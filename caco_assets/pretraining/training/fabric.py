"""Sets up the device, the precision, and the process group of a training."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import log_nothing
from caco_assets.pretraining import distributed
from caco_assets.settings import Pretraining

logger = logging.getLogger(__name__)

# set for each process by torchrun and by Ray Train
_WORLD, _LOCAL_WORLD, _LOCAL_RANK = "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"
# Timeout for another process: labelling a million places or probing on rank 0 takes minutes.
_PATIENCE = timedelta(minutes=30)


def pick_device(options: Pretraining) -> tuple[str, str]:
    """Fabric's names of accelerator and precision for `options.device` and `options.precision`.

    Raises:
        UserError: a GPU is requested and there is none, or fewer than processes, or it lacks bfloat16.
    """
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise UserError("pretraining.device=cuda: this machine has no usable CUDA device; set it to cpu or auto")
    accelerator = "cuda" if cuda and options.device != "cpu" else "cpu"
    here = int(os.environ.get(_LOCAL_WORLD, "1"))
    if accelerator == "cuda" and here > (there := torch.cuda.device_count()):
        raise UserError(
            f"pretraining.processes={here}: each needs a CUDA device of its own, and this machine has {there} that can be used; "
            f"set it to {there}, or pretraining.device to cpu"
        )
    bf16 = accelerator == "cuda" and torch.cuda.is_bf16_supported()
    if options.precision == "bf16" and accelerator == "cuda" and not bf16:
        raise UserError("pretraining.precision=bf16: this GPU has no bfloat16; set it to fp32 or auto")
    wanted = options.precision == "bf16" or (options.precision == "auto" and bf16)
    return accelerator, "bf16-mixed" if wanted else "32-true"


def join(options: Pretraining) -> None:
    """Join the process group if torchrun or Ray started several processes; afterwards `distributed` knows them.

    Raises:
        UserError: see `pick_device`.
    """
    accelerator, _ = pick_device(options)
    if int(os.environ.get(_WORLD, "1")) == 1 or dist.is_initialized():
        return
    device = None
    if accelerator == "cuda":
        device = torch.device("cuda", int(os.environ[_LOCAL_RANK]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if accelerator == "cuda" else "gloo", timeout=_PATIENCE, device_id=device)


def share_of_cores(options: Pretraining) -> int:
    """Threads that render views in this process: `options.threads`, or its share of the cores available on this machine."""
    return options.threads or max(len(os.sched_getaffinity(0)) // int(os.environ.get(_LOCAL_WORLD, "1")), 1)


def leave() -> None:
    """Leave the process group; called last in a process."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def open_fabric(options: Pretraining) -> Fabric:
    """Fabric on the device of this process, with the process group of `join`.

    Raises:
        UserError: see `pick_device`.
    """
    join(options)
    accelerator, precision = pick_device(options)
    if distributed.rank() > 0:
        # only rank 0 logs
        log_nothing()
    if distributed.size() == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)  # pyright: ignore[reportArgumentType]
    here = int(os.environ[_LOCAL_WORLD])
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        # identical at the start, queue, change state and synchronised statistics stay identical
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
    nodes = distributed.size() // here
    fabric = Fabric(accelerator=accelerator, devices=here, num_nodes=nodes, strategy=strategy, precision=precision)  # pyright: ignore[reportArgumentType]
    fabric.launch()
    return fabric


def synchronise_batch_norm(objective: nn.Module, fabric: Fabric) -> None:
    """Compute batch norm statistics over the batches of all processes, in place; on a CPU log that this is not done."""
    if distributed.size() == 1 or not any(isinstance(module, _BatchNorm) for module in objective.modules()):
        return
    if fabric.device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        for name, child in objective.named_children():
            setattr(objective, name, convert_sync_batchnorm(child))
    else:
        logger.warning(
            f"pretrain: on CPUs batch norm takes its statistics in each of the {distributed.size()} processes alone; the "
            "result differs from that of one process. A backbone without batch norm (convnext, vit) gives the same"
        )
