"""How fast pretraining runs on a GPU: the device loader and the step together, against the same step on one resident batch.

CACo in bfloat16 on a pack of random textures that this program writes itself, so that a machine with torch and the learning core's
few libraries is enough. Three ways by turns: one batch again and again (what the step alone can do), batches of a pack that is
resident in the GPU's memory (the figure), and batches of the same pack streamed to it. Beside them the share of this GPU's own rate
in a bfloat16 matrix product that the passes which cannot be left out reach.

`--kernels FILE` writes down where the time goes: the kernels of the views and of the step, each alone, the longest first.

Without a GPU it says so, measures nothing and ends well. `--rehearse` goes through everything at a tiny size on the CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from caco_assets.pretraining.encoder.encoder import backbone
from caco_assets.pretraining.loading.gpu_loader import DeviceLoader
from caco_assets.pretraining.loading.sampler import Batch, Sampler
from caco_assets.pretraining.objectives import Objective, ObjectiveConfig, build, objective_class
from caco_assets.pretraining.pack.build import build as build_pack
from caco_assets.pretraining.training.compiled import compile_encoders

BAR = 0.87
BANDS, SEASONS = ("B04", "B03", "B02"), 5


@dataclass(frozen=True)
class Sizes:
    """Of one measurement."""

    backbone: str
    places: int
    chip: int
    image: int
    batch: int
    queue: int
    steps: int
    repeats: int


@dataclass(frozen=True)
class Chip:
    """One date of one place."""

    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def chips(places: int, side: int) -> Iterator[Chip]:
    """Random textures: a few drawn, each date another shift of one."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 10_000, (8, len(BANDS), side, side), dtype=np.uint16)
    for place in range(places):
        for date in range(2 * SEASONS):
            pixels = np.roll(drawn[(place + date) % len(drawn)], (7 * place + date) % side, axis=2)
            yield Chip(f"L{place:07d}", date // SEASONS, date % SEASONS, 0.0, 0.0, pixels)


def write(folder: Path, sizes: Sizes) -> Path:
    options = {"bands": BANDS, "archive_bands": BANDS, "stretch": "reflectance", "chip_size": sizes.chip, "seasons": SEASONS}
    total = sizes.places * 2 * SEASONS
    build_pack(chips(sizes.places, sizes.chip), folder / "pack", **options, min_seasons=3, total=total)
    return folder / "pack"


class Training:
    """The training loop's step, without its figures."""

    def __init__(self, sizes: Sizes, device: torch.device, compiled: bool) -> None:
        network = backbone(sizes.backbone, len(BANDS), sizes.image)
        config = ObjectiveConfig(slots=2 * sizes.places, queue_size=sizes.queue)
        width = int(network.num_features)  # pyright: ignore[reportArgumentType]
        self.objective: Objective = build("caco", config, network, features=width, seed=0).to(device).train()
        if compiled:
            compile_encoders(self.objective)
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        self.sgd = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-4, fused=True)
        self.device = device

    def step(self, batch: Batch) -> None:
        """One step; the host does not wait for it."""
        self.objective.before_step()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.objective(batch.views, batch.slots)
        self.sgd.zero_grad(set_to_none=True)
        output.loss.backward()
        self.sgd.step()
        self.objective.after_step(output)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def endless(loader: DeviceLoader) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def seconds(training: Training, batches: Iterator[Batch], steps: int) -> float:
    wait(training.device)
    start = time.perf_counter()
    for _ in range(steps):
        training.step(next(batches))
    wait(training.device)
    return time.perf_counter() - start


def matmul_rate(device: torch.device, side: int) -> float:
    """FLOP/s of a bfloat16 product of random square matrices, the mean of ten."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    wait(device)
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    wait(device)
    return 10 * 2 * side**3 / (time.perf_counter() - start)


def flops_per_sample(sizes: Sizes) -> float:
    """Of query forward and backward and four key passes."""
    network = backbone(sizes.backbone, len(BANDS), sizes.image)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, len(BANDS), sizes.image, sizes.image)).sum().backward()
        with torch.no_grad():
            for _ in range(4):
                network(torch.zeros(2, len(BANDS), sizes.image, sizes.image))
    return counter.get_total_flops() / 2


def kernels(file: Path, training: Training, batches: Iterator[Batch], steps: int) -> None:
    """Write what the views, and then the step, spend their time on."""
    one = next(batches)
    parts: dict[str, Callable[[], object]] = {"views": lambda: next(batches), "step": lambda: training.step(one)}
    on_gpu = training.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    lines: list[str] = []
    for name, part in parts.items():
        start = time.perf_counter()
        with profile(activities=activities, acc_events=True) as profiled:
            for _ in range(steps):
                part()
            wait(training.device)
        lines.append(f"{name}: {(time.perf_counter() - start) / steps * 1e3:.2f} ms, the profiler's own time included")
        by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        lines.append(profiled.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=90))
    file.write_text("\n".join(lines))


def measure(device: torch.device, sizes: Sizes, compiled: bool, file: Path | None) -> list[float]:
    """Samples per second end to end over those of the resident batch, one for each repeat; the kernels go to `file`."""
    options = {"batch_size": sizes.batch, "image_size": sizes.image, "crop_scale": (0.2, 1.0), "seed": 0}
    plan = objective_class("caco").plan
    with tempfile.TemporaryDirectory() as scratch:
        pack = write(Path(scratch), sizes)
        training = Training(sizes, device, compiled)
        resident, streamed = (
            DeviceLoader(Sampler(pack, plan, **options), device=device, memory=share, compiled=compiled) for share in (1.0, 0.0)
        )
        one = next(resident.epoch(0))
        ways = {"one batch": iter(lambda: one, None), "resident": endless(resident), "streamed": endless(streamed)}
        for batches in ways.values():
            seconds(training, batches, 3)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(sizes.repeats):
            for name, batches in ways.items():
                rates[name].append(sizes.steps * sizes.batch / seconds(training, batches, sizes.steps))
        if file is not None:
            kernels(file, training, ways["resident"], min(sizes.steps, 8))
        for batches in (ways["resident"], ways["streamed"]):
            batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    peak = matmul_rate(device, 8192 if device.type == "cuda" else 256)
    needed = flops_per_sample(sizes)
    for name, values in rates.items():
        middle = statistics.median(values)
        print(
            f"{name:10s} {middle:8.0f} samples/s ({min(values):.0f} to {max(values):.0f}), "
            f"{needed * middle / 1e12:.3g} TFLOP/s, {needed * middle / peak:.1%} of the {peak / 1e12:.3g} in a bf16 product"
        )
    print(f"streamed over one batch: {statistics.median(rates['streamed']) / statistics.median(rates['one batch']):.3f}")
    return [ours / alone for ours, alone in zip(rates["resident"], rates["one batch"], strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller pack, fewer steps")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU: shows that it runs, measures nothing")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--compile", action="store_true", help="compiled encoders and colour operations")
    parser.add_argument("--kernels", type=Path, metavar="FILE", help="where the time goes, kernel by kernel")
    given = parser.parse_args()
    line: dict[str, object] = {"benchmark": "gpu_pretrain", "ratio": None, "low": None, "high": None, "bar": BAR, "pass": None}
    if given.rehearse:
        measure(torch.device("cpu"), Sizes("test_resnet", 8, 32, 32, 8, 16, 2, 2), given.compile, given.kernels)
        print(json.dumps({**line, "note": "rehearsal: not measured"}))
        return 0
    if not torch.cuda.is_available():
        print("no GPU here: not measured")
        print(json.dumps(line))
        return 0
    places, steps, repeats = (1024, 16, 5) if given.quick else (4096, 64, 7)
    device = torch.device("cuda", torch.cuda.current_device())
    print(f"{torch.cuda.get_device_name(device)}, Python {platform.python_version()}, torch {torch.__version__}")
    sizes = Sizes(given.backbone, places, 264, 224, given.batch, 16_384, steps, repeats)
    ratios = measure(device, sizes, given.compile, given.kernels)
    ratio = statistics.median(ratios)
    line |= {"ratio": round(ratio, 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3), "pass": ratio >= BAR}
    print(json.dumps(line))
    return 0 if line["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
