"""What the checksums of a pack cost a training step: loading and training with them, against the same without.

Every image is compared with its CRC-32 when a process first reads it, so the first epoch is measured; later ones compare next to
nothing. Both sides load the same batches of 264 px chips by turns; the figure is the CPU time (on a GPU: the wall time) of a
training step without the checks over one with them, from the difference in loading, which other load hides in whole steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from caco_assets.pretraining.encoder.encoder import backbone
from caco_assets.pretraining.loading.cpu_loader import Loader
from caco_assets.pretraining.loading.gpu_loader import DeviceLoader
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.objectives import ObjectiveConfig, build, objective_class
from caco_assets.pretraining.pack import build as pack_build

BAR = 0.98
SIDE, DATES, BANDS = 264, 3, ("B04", "B03", "B02")


@dataclass(frozen=True)
class Chip:
    """A chip of the pack's input."""

    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def write_pack(folder: Path, places: int) -> Path:
    """A pack of noise in its real size per place."""
    noise = np.random.default_rng(0).integers(1, 4000, (2 * DATES, len(BANDS), SIDE, SIDE), np.uint16)
    slots = ((place, *divmod(slot, DATES), slot) for place in range(places) for slot in range(2 * DATES))
    chips = (Chip(f"L{place:07d}", period, season, 0.0, 0.0, noise[slot]) for place, period, season, slot in slots)
    sizes = {"chip_size": SIDE, "seasons": DATES, "min_seasons": DATES, "total": 2 * DATES * places}
    pack_build.build(chips, folder, bands=BANDS, archive_bands=BANDS, stretch="seco", **sizes)
    return folder


def measure(pack: Path, device: str, side: int, batch: int, pairs: int) -> list[float]:
    """Ratios of a step without checks over one with them, from five parts of the pairs."""
    torch.manual_seed(0)
    clock: Callable[[], float] = time.process_time if device == "cpu" else time.perf_counter
    sampler = Sampler(pack, objective_class("caco").plan, batch_size=batch, image_size=side, crop_scale=(0.2, 1.0), seed=0)
    config = ObjectiveConfig(slots=2 * sampler.places, queue_size=batch * 16, embedding_dim=128, temperature=0.07, momentum=0.999)
    objective = build("caco", config, backbone("resnet18", len(BANDS)), features=512, seed=0).train().to(device)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], 0.03)
    checked, steps = sampler.pack, sampler.steps_per_epoch
    packs = {"without": replace(checked, sums=None), "with": checked}

    def epoch(name: str, *, train: bool) -> float:
        checked.checked[...] = False
        sampler.pack = packs[name]
        loader = Loader(sampler, threads=1) if device == "cpu" else DeviceLoader(sampler, device=device, memory=0.0)
        start = clock()
        for views in loader.epoch(0):
            if train:
                objective.before_step()
                output = objective(views.views, views.slots)
                optimizer.zero_grad(set_to_none=True)
                output.loss.backward()
                optimizer.step()
                objective.after_step(output)
        if device != "cpu":
            torch.cuda.synchronize()
        return (clock() - start) / steps

    epoch("without", train=True)
    whole = statistics.median(epoch("without", train=True) for _ in range(3))
    more: list[float] = []
    for pair in range(pairs):
        names = ("without", "with") if pair % 2 else ("with", "without")
        seconds = {name: epoch(name, train=False) for name in names}
        more.append(seconds["with"] - seconds["without"])
    epoch("with", train=False)
    parts = [statistics.median(more[part::5]) for part in range(5)]
    print(
        f"{side:3d} px, batch {batch}, {steps} steps: {checked.checked.sum()} images compared take "
        f"{1000 * statistics.median(more):.1f} ms of a step of {1000 * whole:.0f} ms"
    )
    return [whole / (whole + part) for part in parts]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer places and pairs")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.device}")
    big = options.device != "cpu"
    places, side, batch, pairs = (512, 224, 128, 20) if big else (64, 64, 32, 60)
    if options.quick:
        places, pairs = places // 2, pairs // 3
    with tempfile.TemporaryDirectory() as scratch:
        ratios = measure(write_pack(Path(scratch) / "pack", places), options.device, side, batch, pairs)
    middle = statistics.median(ratios)
    line = {"benchmark": "pack_checks", "ratio": middle, "low": min(ratios), "high": max(ratios), "bar": BAR}
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
    print(json.dumps(shown | {"pass": middle >= BAR}))
    return 0 if middle >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
