"""How busy the GPUs of this machine are, as NVIDIA's own tool says it."""

from __future__ import annotations

import shutil
import subprocess
from typing import NamedTuple

_FIELDS = "index,utilization.gpu,memory.used,memory.total"
_MIB = 1 << 20
_PATIENCE_S = 5


class Gpu(NamedTuple):
    """One GPU now."""

    number: str
    busy: float
    """Share of the last second in which a kernel ran."""
    used_bytes: int
    bytes: int


def gpus(tool: str = "nvidia-smi") -> list[Gpu]:
    """The GPUs; none where there is no such tool, or it does not answer."""
    if shutil.which(tool) is None:
        return []
    command = [tool, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [found for line in done.stdout.splitlines() if (found := _gpu(line)) is not None]


def _gpu(line: str) -> Gpu | None:
    number, *figures = (part.strip() for part in line.split(","))
    try:
        busy, used, total = map(float, figures)
    except ValueError:  # a GPU that is cut in parts says "[N/A]"
        return None
    return Gpu(number, busy / 100, int(used * _MIB), int(total * _MIB))
