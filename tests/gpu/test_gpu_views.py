"""On a GPU: views are those of the CPU's loader, resident and streamed, and making them never makes the host wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from caco_assets.pretraining.loading.cpu_loader import Loader
from caco_assets.pretraining.loading.gpu_loader import DeviceLoader
from caco_assets.pretraining.loading.sampler import Batch, Sampler
from caco_assets.pretraining.views.view_plans import PLANS

pytestmark = pytest.mark.gpu
BLUR = 5 / 255 / 0.22
"""Five grey levels, normalised: what Pillow's roundings within a blur and half precision can cost."""
PLAIN = 0.5 / 255 / 0.22
"""Half a level, normalised: half precision alone."""
SIZES = {"batch_size": 8, "image_size": 48, "crop_scale": (0.2, 1.0), "seed": 0}


@pytest.fixture(params=[1.0, 0.0], ids=["resident", "streamed"])
def memory(request: pytest.FixtureRequest) -> float:
    return request.param


def loader(pack: Path, device: torch.device, memory: float, plan: str = "caco", **changes: object) -> DeviceLoader:
    return DeviceLoader(Sampler(pack, PLANS[plan], **{**SIZES, **changes}), device=device, memory=memory, threads=2)


@pytest.mark.parametrize("plan", ["caco", "seco", "moco"])
def test_batches_are_those_of_the_cpu_loader(pack: Path, cuda: torch.device, plan: str, memory: float):
    ours, theirs = loader(pack, cuda, memory, plan), Loader(Sampler(pack, PLANS[plan], **SIZES), threads=2)
    for a, b in zip(ours.epoch(1), theirs.epoch(1), strict=True):
        assert a.views.device == a.slots.device == cuda
        assert torch.equal(a.slots.cpu(), b.slots)
        difference = (a.views.cpu() - b.views).abs()
        if plan == "moco":  # ties of the rounding after the crop, which the colour steps can spread
            assert (difference > BLUR).float().mean() < 1e-3
        else:
            assert difference.max() < BLUR
        for view in (v for v, about in enumerate(PLANS[plan].views) if not about.augment):
            assert difference[view].max() < PLAIN


def test_any_bands_in_any_order(pack: Path, cuda: torch.device, memory: float):
    chosen = {"bands": ("B02", "B04")}
    theirs = Loader(Sampler(pack, PLANS["caco"], **SIZES, **chosen), threads=2)
    for a, b in zip(loader(pack, cuda, memory, **chosen).epoch(0), theirs.epoch(0), strict=True):
        assert (a.views.cpu() - b.views).abs().max() < BLUR


def test_the_same_epoch_twice_is_the_same_to_the_last_bit(pack: Path, cuda: torch.device, memory: float):
    first, again = (list(loader(pack, cuda, memory).epoch(0)) for _ in range(2))
    assert all(torch.equal(a.views, b.views) for a, b in zip(first, again, strict=True))


def test_compiled_colours_are_the_same(pack: Path, cuda: torch.device):
    plain, fused = (next(loader(pack, cuda, 1.0, compiled=compiled).epoch(0)) for compiled in (False, True))
    difference = (plain.views - fused.views).abs()
    # a division that rounds the other way moves the hue by one of 255 steps, which is up to six levels
    assert (difference > PLAIN).float().mean() < 1e-3
    assert difference.max() < 8 / 255 / 0.22


def test_making_views_never_makes_the_host_wait(pack: Path, cuda: torch.device, memory: float, strictly: None):
    made = [batch for epoch in range(2) for batch in loader_in_use(pack, cuda, memory).epoch(epoch)]
    assert len(made) == 12


def loader_in_use(pack: Path, device: torch.device, memory: float) -> DeviceLoader:
    """One whose pack is in memory already: filling it does wait."""
    torch.cuda.set_sync_debug_mode("default")
    opened = loader(pack, device, memory)
    assert opened.resident is (memory > 0)
    torch.cuda.set_sync_debug_mode("error")
    return opened


@pytest.fixture
def strictly(cuda: torch.device) -> Iterator[None]:
    """Whatever makes the host wait for the GPU is an error."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_batches_keep_their_content_while_later_ones_are_made(pack: Path, cuda: torch.device, memory: float):
    kept: list[tuple[Batch, torch.Tensor]] = []
    for epoch in range(3):
        for batch in loader(pack, cuda, memory).epoch(epoch):
            kept.append((batch, batch.views.double().sum()))
            _ = torch.randn(2048, 2048, device=cuda) @ torch.randn(2048, 2048, device=cuda)
    assert all(batch.views.double().sum() == total for batch, total in kept)
