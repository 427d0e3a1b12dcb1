"""The loader of the device: it holds what the CPU's loader holds, whether the pack is resident or streamed; here on torch's CPU."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.pretraining.loading import gpu_images
from caco_assets.pretraining.loading.cpu_loader import Loader
from caco_assets.pretraining.loading.gpu_loader import DeviceLoader
from caco_assets.pretraining.loading.sampler import Batch, Sampler
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.views.gpu_renderer import DeviceRenderer
from caco_assets.pretraining.views.view_plans import PLANS

BANDS = ("B04", "B03", "B02")
PLACES, SEASONS, SIDE = 13, 4, 32
MISSING = {(0, 0, 1), (3, 1, 0), (5, 1, 3)}
BLUR = 5 / 255 / 0.22
"""Five grey levels, normalised: what Pillow's roundings within a blur can cost on noise."""


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device") / "pack"
    dates = [(place, period, season) for place in range(PLACES) for period in range(2) for season in range(SEASONS)]
    chips = [
        Chip(f"L{place:07d}", period, season, 0.0, 0.0, pixels(place, period, season))
        for place, period, season in dates
        if (place, period, season) not in MISSING
    ]
    arguments = {"bands": BANDS, "archive_bands": BANDS, "stretch": "reflectance", "chip_size": SIDE, "seasons": SEASONS}
    build(chips, folder, **arguments, min_seasons=3, total=len(chips))
    return folder


def pixels(*date: int) -> np.ndarray:
    return np.random.default_rng(date).integers(0, 10_000, (3, SIDE, SIDE), dtype=np.uint16)


def arguments(plan: str = "caco", **changes: object) -> dict:
    return {
        "plan": PLANS[plan],
        "batch_size": 6,
        "image_size": 16,
        "crop_scale": (0.2, 1.0),
        "seed": 0,
        **changes,
    }


def make(pack: Path, memory: float = 0.5, **changes: object) -> DeviceLoader:
    return DeviceLoader(Sampler(pack, **{**arguments(), **changes}), device="cpu", memory=memory, threads=2)


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.views, b.views) and torch.equal(a.slots, b.slots)


@pytest.mark.parametrize("memory", [0.5, 0.0], ids=["resident", "streamed"])
@pytest.mark.parametrize("plan", ["caco", "seco", "moco"])
def test_batches_are_those_of_the_cpu_loader(pack: Path, plan: str, memory: float):
    ours, theirs = make(pack, memory, plan=PLANS[plan]), Loader(Sampler(pack, **arguments(plan)), threads=2)
    assert ours.steps_per_epoch == theirs.steps_per_epoch
    for a, b in zip(ours.epoch(1), theirs.epoch(1), strict=True):
        assert torch.equal(a.slots, b.slots)
        difference = (a.views - b.views).abs()
        if plan == "moco":  # ties of the rounding after the crop, which the colour steps can spread
            assert (difference > BLUR).float().mean() < 1e-3
        else:
            assert difference.max() < BLUR
        for view in (v for v, about in enumerate(PLANS[plan].views) if not about.augment):
            torch.testing.assert_close(a.views[view], b.views[view], rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory", [0.5, 0.0], ids=["resident", "streamed"])
def test_any_bands_in_any_order(pack: Path, memory: float):
    ours = make(pack, memory, bands=("B02", "B04"))
    theirs = Loader(Sampler(pack, **arguments(bands=("B02", "B04"))), threads=2)
    for a, b in zip(ours.epoch(0), theirs.epoch(0), strict=True):
        assert a.views.shape == (4, 6, 2, 16, 16)
        assert (a.views - b.views).abs().max() < BLUR


def test_a_pack_that_does_not_fit_is_streamed(pack: Path, monkeypatch: pytest.MonkeyPatch):
    opened = gpu_images.Pack.open(pack)
    needed = PLACES * 2 * SEASONS * SIDE**2 * 3
    for free, resident in ((2 * needed, True), (2 * needed - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        monkeypatch.setattr(gpu_images, "Resident", lambda *_: type("All", (), {"resident": True})())
        images = gpu_images.open_images(opened, [0, 1, 2], torch.device("cuda", 0), 0.5, 1)
        assert images.resident is resident
    monkeypatch.undo()
    assert make(pack).resident
    assert not make(pack, 0.0).resident


def test_a_resident_pack_is_copied_piece_by_piece(pack: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_images, "_PIECE", 3 * 2 * SEASONS * SIDE**2 * 3)
    assert all(same(a, b) for a, b in zip(make(pack).epoch(0), make(pack, 0.0).epoch(0), strict=True))


def test_processes_share_the_batch_of_one(pack: Path):
    whole = next(make(pack, batch_size=8).epoch(0))
    parts = [next(make(pack, batch_size=8, part=(rank, 2)).epoch(0)) for rank in range(2)]
    torch.testing.assert_close(torch.cat([part.views for part in parts], dim=1), whole.views, rtol=0, atol=1e-5)
    assert torch.equal(torch.cat([part.slots for part in parts]), whole.slots)


@settings(max_examples=5)
@given(st.integers(0, 4), st.sampled_from([0.5, 0.0]))
def test_an_epoch_can_resume_from_any_step(pack: Path, start: int, memory: float):
    rest = list(make(pack, memory).epoch(2))[start:]
    resumed = list(make(pack, memory).epoch(2, start_step=start))
    assert len(rest) == len(resumed)
    assert all(same(a, b) for a, b in zip(rest, resumed, strict=True))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("views", "batches"))]


def test_threads_end_with_the_epoch_and_when_it_is_left(pack: Path):
    loader = make(pack, 0.0)
    list(loader.epoch(0))
    assert threads() == []
    epoch = loader.epoch(1)
    next(epoch)
    assert threads() != []
    epoch.close()
    assert threads() == []


def test_an_error_in_a_thread_reaches_the_caller(pack: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise OSError("the file is gone")

    monkeypatch.setattr(gpu_images, "_take", broken)
    with pytest.raises(OSError, match="the file is gone"):
        next(make(pack, 0.0).epoch(0))
    assert threads() == []


def test_an_error_of_the_device_reaches_the_caller(pack: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no such image")

    monkeypatch.setattr(DeviceRenderer, "render", broken)
    with pytest.raises(RuntimeError, match="no such image"):
        next(make(pack).epoch(0))
    assert threads() == []


def test_what_cannot_be_loaded_is_said_before_training(pack: Path):
    with pytest.raises(UserError, match="batch_size=7: must be a multiple of 2"):
        make(pack, batch_size=7)
    with pytest.raises(UserError, match=r"the pack has B04,B03,B02, not B08"):
        make(pack, bands=("B08",))


def test_the_device_loader_needs_no_compiler_of_loops_for_the_cpu():
    code = "import sys, caco_assets.pretraining.loading.gpu_loader; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"numba", "rasterio", "geopandas", "dagster", "mlflow", "timm", "lightning", "torchvision", "pandas"}
    assert not heavy & {module.partition(".")[0] for module in modules}
