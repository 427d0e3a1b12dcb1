"""GPU utilization and memory of this machine, read from NVIDIA's management library (NVML).

Needs the package `nvidia-ml-py` (extra `gpu`); without it or a driver, no metrics are reported.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """The current state of one GPU."""

    number: str
    busy: float
    """Fraction of the last second in which a kernel ran."""
    used_bytes: int
    bytes: int


def gpus() -> list[Gpu]:
    """The readable GPUs; a partitioned GPU (MIG) reports no utilization and is left out."""
    try:
        import pynvml as nvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        # an open library would keep an administrator from resetting the GPU
        try:
            return [gpu for number in range(nvml.nvmlDeviceGetCount()) if (gpu := _read(nvml, number)) is not None]
        finally:
            nvml.nvmlShutdown()
    return []


def _read(nvml: Any, number: int) -> Gpu | None:
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        busy = nvml.nvmlDeviceGetUtilizationRates(device).gpu
        # version 2 excludes memory reserved by the driver, as nvidia-smi does
        memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:
        return None
    return Gpu(str(number), busy / 100, memory.used, memory.total)
