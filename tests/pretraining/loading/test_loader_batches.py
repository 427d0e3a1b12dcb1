"""The loader: what a batch holds, that nothing but (seed, epoch, step) decides it, and that its threads end."""

import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.loading import cpu_loader as loader_module
from caco_assets.pretraining.loading.cpu_loader import Batch, Loader
from caco_assets.pretraining.loading.sampler import Sampler, draw_dates, reference_pair_order
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.views.view_plans import PLANS, ViewPlan

BANDS = ("B04", "B03", "B02")
PLACES, SEASONS, SIDE = 13, 4, 32


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def constant_chip(place: int, period: int, season: int) -> Chip:
    """Every pixel says which date it is: place in red, period in green, season in blue."""
    levels = np.array([place * 10, period * 100, season * 30 + 40])
    archive = np.ceil(levels * 10_000 / 255).astype(np.uint16)
    return Chip(f"L{place:07d}", period, season, 0.0, 0.0, np.broadcast_to(archive[:, None, None], (3, SIDE, SIDE)))


MISSING = {(0, 0, 1), (3, 1, 0), (5, 1, 3)}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader") / "pack"
    dates = [(place, period, season) for place in range(PLACES) for period in range(2) for season in range(SEASONS)]
    chips = [constant_chip(*date) for date in dates if date not in MISSING]
    arguments = {"bands": BANDS, "archive_bands": BANDS, "stretch": "reflectance", "chip_size": SIDE, "seasons": SEASONS}
    build(chips, folder, **arguments, min_seasons=3, total=len(chips))
    return folder


def make(pack: Path, plan: str | ViewPlan = "caco", **changes: object) -> Loader:
    arguments = {"batch_size": 6, "image_size": 16, "crop_scale": (0.2, 1.0), "seed": 0, **changes}
    threads = arguments.pop("threads", 1)
    return Loader(Sampler(pack, PLANS[plan] if isinstance(plan, str) else plan, **arguments), threads=threads)


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.views, b.views) and torch.equal(a.slots, b.slots)


def dates_of(batch: Batch, view: int) -> np.ndarray:
    """int (B, 3): place, period, season that the pixels of a view without augmentation say."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    levels = ((batch.views[view] * std + mean) * 255).round()  # (B, 3, S, S)
    assert (levels == levels[:, :, :1, :1]).all()
    place, period, season = levels[:, :, 0, 0].T.numpy()
    return np.stack([place / 10, period / 100, (season - 40) / 30], axis=1).round().astype(int)


MEAN, STD = (getattr(Preprocessing.of_pack(BANDS, "reflectance", 16), name) for name in ("mean", "std"))


def test_a_batch_has_the_shapes_that_training_expects(pack: Path):
    batch = next(make(pack).epoch(0))
    assert batch.views.shape == (4, 6, 3, 16, 16)
    assert batch.views.dtype == torch.float32
    assert batch.slots.dtype == torch.int64
    assert batch.views.isfinite().all()


def test_any_bands_of_the_pack_in_any_order_give_the_same_places_and_crops(pack: Path):
    plan = replace(PLANS["caco"], views=tuple(replace(view, augment=False) for view in PLANS["caco"].views))
    whole, some = next(make(pack, plan).epoch(0)), next(make(pack, plan, bands=("B02", "B04")).epoch(0))
    assert torch.equal(some.slots, whole.slots)
    torch.testing.assert_close(some.views, whole.views[:, :, [2, 0]])
    assert make(pack, bands=("B02", "B04")).sampler.preprocessing.bands == ("B02", "B04")


def test_a_band_that_the_pack_lacks_is_named(pack: Path):
    with pytest.raises(UserError, match=r"pretraining.bands=B08,B04: the pack has B04,B03,B02, not B08; build the pack again"):
        make(pack, bands=("B08", "B04"))


def test_rows_are_pairs_of_an_early_and_a_late_period(pack: Path):
    for batch in make(pack).epoch(0):
        assert (batch.slots[::2] % 2 == 0).all()
        assert torch.equal(batch.slots[1::2], batch.slots[::2] + 1)


@pytest.mark.parametrize("plan", ["caco", "teco"])
def test_a_paired_epoch_shows_places_at_most_once_and_pixels_are_of_the_slot(pack: Path, plan: str):
    loader = make(pack, plan)
    batches = list(loader.epoch(3))
    assert len(batches) == loader.steps_per_epoch == 2 * PLACES // 6
    slots = torch.cat([batch.slots for batch in batches])
    assert len(slots.unique()) == len(slots)
    for batch in batches:
        for view in (0, 2):
            dates = dates_of(batch, view)
            assert np.array_equal(2 * dates[:, 0] + dates[:, 1], batch.slots)
            assert not MISSING & {tuple(row) for row in dates.tolist()}


def test_caco_draws_different_dates_for_its_views(pack: Path):
    for batch in make(pack).epoch(0):
        assert (dates_of(batch, 0)[:, 2] != dates_of(batch, 2)[:, 2]).all()


def test_a_plan_over_the_whole_place_takes_each_place_once(pack: Path):
    loader = make(pack, "seco")
    batches = list(loader.epoch(0))
    slots = torch.cat([batch.slots for batch in batches])
    assert loader.steps_per_epoch == PLACES // 6
    assert (slots % 2 == 0).all()
    assert len(slots.unique()) == len(slots)
    dates = np.concatenate([dates_of(batch, 0) for epoch in range(4) for batch in loader.epoch(epoch)])
    assert set(dates[:, 1]) == {0, 1}
    assert all(np.array_equal(dates_of(batch, 2)[:, 0], batch.slots // 2) for batch in batches)


def test_moco_shows_one_date_twice(pack: Path):
    plan = replace(PLANS["moco"], views=tuple(replace(view, augment=False) for view in PLANS["moco"].views))
    batch = next(make(pack, plan).epoch(0))
    assert np.array_equal(dates_of(batch, 0), dates_of(batch, 1))


@pytest.mark.parametrize("plan", ["caco", "moco"])
def test_threads_do_not_change_a_batch(pack: Path, plan: str):
    one, three = make(pack, plan), make(pack, plan, threads=3)
    assert all(same(a, b) for a, b in zip(one.epoch(1), three.epoch(1), strict=True))


def test_processes_share_the_batch_of_one(pack: Path):
    whole = next(make(pack, batch_size=8).epoch(0))
    parts = [next(make(pack, batch_size=8, part=(rank, 2)).epoch(0)) for rank in range(2)]
    assert torch.equal(torch.cat([part.views for part in parts], dim=1), whole.views)
    assert torch.equal(torch.cat([part.slots for part in parts]), whole.slots)


@given(st.integers(0, 4))
def test_an_epoch_can_resume_from_any_step(pack: Path, start: int):
    loader = make(pack)
    rest = list(loader.epoch(2))[start:]
    resumed = list(make(pack).epoch(2, start_step=start))
    assert len(rest) == len(resumed)
    assert all(same(a, b) for a, b in zip(rest, resumed, strict=True))


def test_seed_and_epoch_change_order_and_views(pack: Path):
    base = next(make(pack).epoch(0))
    for other in (next(make(pack, seed=1).epoch(0)), next(make(pack).epoch(1))):
        assert not torch.equal(other.slots, base.slots)
        assert not torch.equal(other.views[0], base.views[0])


@given(st.integers(0, 2**31), st.booleans(), st.sampled_from(["period", "place"]))
def test_dates_are_valid_and_of_the_slot(seed: int, replaced: bool, scope: str):
    generator = np.random.default_rng(seed)
    valid = generator.random((6, 2, 5)) < 0.5
    valid[:, :, :3] = True
    plan = ViewPlan(draw=3, replace=replaced, scope=scope, paired=True, crop_first=False, views=())
    slots = generator.integers(0, 12, 40)
    dates = draw_dates(generator, plan, valid, slots)
    period, season = np.divmod(dates, 5)
    assert dates.shape == (40, 3)
    assert valid[slots[:, None] // 2, period, season].all()
    if scope == "period":
        assert (period == slots[:, None] % 2).all()
    if not replaced:
        assert all(len(set(row)) == 3 for row in dates.tolist())


@pytest.mark.parametrize("replaced", [True, False])
def test_every_valid_date_is_as_likely(replaced: bool):
    valid = np.ones((1, 2, 5), bool)
    valid[0, 0, 2] = False
    plan = ViewPlan(draw=3, replace=replaced, scope="period", paired=True, crop_first=False, views=())
    dates = draw_dates(np.random.default_rng(0), plan, valid, np.zeros(8_000, np.int64))
    for column in range(3):
        shares = np.bincount(dates[:, column], minlength=10) / 8_000
        np.testing.assert_allclose(shares, [0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0, 0, 0], atol=0.02)
    repeated = np.mean([len(set(row)) < 3 for row in dates.tolist()])
    assert repeated == 0 if not replaced else abs(repeated - (1 - 3 / 4 * 2 / 4)) < 0.03


def test_the_published_order_keeps_pairs_together():
    order = reference_pair_order(20, seed=5)
    assert sorted(order) == list(range(20))
    assert all(early % 2 == 0 and late == early + 1 for early, late in zip(order[::2], order[1::2], strict=True))


def views_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("views", "batches"))]


def test_threads_end_with_the_epoch_and_when_it_is_left(pack: Path):
    loader = make(pack, threads=2)
    list(loader.epoch(0))
    assert views_threads() == []
    for _batch in loader.epoch(0):
        break
    del _batch
    epoch = loader.epoch(1)
    next(epoch)
    assert views_threads() != []
    epoch.close()
    assert views_threads() == []


def test_an_error_in_a_thread_reaches_the_caller(pack: Path, monkeypatch: pytest.MonkeyPatch):
    class Broken(loader_module.Renderer):
        def render(self, *arguments: object) -> None:
            raise RuntimeError("no such view")

    monkeypatch.setattr(loader_module, "Renderer", Broken)
    with pytest.raises(RuntimeError, match="no such view"):
        next(make(pack, threads=2).epoch(0))
    assert views_threads() == []


@pytest.mark.parametrize(
    ("plan", "changes", "message"),
    [
        ("caco", {"batch_size": 7}, "batch_size=7: must be a multiple of 2"),
        ("caco", {"batch_size": 6, "part": (0, 2)}, "batch_size=6: must be a multiple of 4"),
        ("caco", {"batch_size": 64}, "batch_size=64: the pack .* holds only 26 samples"),
        ("seco", {"batch_size": 14}, "holds only 13 samples"),
        (replace(PLANS["caco"], draw=4), {}, "min_seasons: a place of the pack .* has only 3 dates .* draws 4"),
    ],
)
def test_what_cannot_be_loaded_is_said_before_training(pack: Path, plan: str | ViewPlan, changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        make(pack, plan, **changes)


def test_the_loader_needs_neither_rasterio_nor_dagster():
    code = "import sys, caco_assets.pretraining.loading.cpu_loader; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "caco_assets.pretraining.views.cpu_kernel" in modules
    heavy = {"rasterio", "geopandas", "dagster", "mlflow", "timm", "lightning", "torchvision", "pandas"}
    assert not heavy & {module.partition(".")[0] for module in modules}


def test_batches_that_the_caller_keeps_stay_as_they_are_though_memory_is_used_again(pack: Path) -> None:
    loader = make(pack, batch_size=2)
    copies = [batch.views.clone() for batch in loader.epoch(0)]
    kept = list(loader.epoch(0))
    assert len(kept) == len(copies) > 4
    for batch, copy in zip(kept, copies, strict=True):
        torch.testing.assert_close(batch.views, copy, rtol=0, atol=0)
    addresses = [batch.views.data_ptr() for batch in loader.epoch(0)]
    assert len(set(addresses)) < len(addresses)
