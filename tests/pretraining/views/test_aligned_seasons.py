"""Aligned seasons: one season for both queries of a pair, and everything else drawn as before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.pretraining.loading.sampler import Sampler, draw_dates
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.views.view_plans import PLANS
from caco_assets.settings import load_settings

ALIGNED = {name: replace(PLANS[name], aligned=True) for name in ("caco", "teco")}


def slots_of(places: np.ndarray) -> np.ndarray:
    return np.stack([2 * places, 2 * places + 1], axis=1).ravel()


@given(st.integers(0, 2**31), st.sampled_from(["caco", "teco"]))
def test_the_queries_of_a_pair_show_one_season_valid_in_both_periods(seed: int, plan: str) -> None:
    generator = np.random.default_rng(seed)
    valid = generator.random((8, 2, 5)) < 0.6
    valid[:, :, :3] |= np.array([True, True, True])
    slots = slots_of(generator.permutation(8))
    dates = draw_dates(generator, ALIGNED[plan], valid, slots)
    period, season = np.divmod(dates, 5)
    assert (period == slots[:, None] % 2).all()
    assert valid[slots[:, None] // 2, period, season].all()
    assert (season[0::2, 0] == season[1::2, 0]).all()
    if plan == "caco":
        assert all(len(set(row)) == 3 for row in dates.tolist())


def test_every_common_season_is_as_likely_and_so_are_the_other_dates() -> None:
    valid = np.ones((1, 2, 5), bool)
    valid[0, 0, 2] = False
    slots = np.tile([0, 1], 8_000)
    dates = draw_dates(np.random.default_rng(0), ALIGNED["caco"], valid, slots) % 5
    for rows in (dates[0::2], dates[1::2]):
        np.testing.assert_allclose(np.bincount(rows[:, 0], minlength=5) / 8_000, [0.25, 0.25, 0, 0.25, 0.25], atol=0.02)
    # given the query's season, each of the late period's other four is as likely
    late = dates[1::2][dates[1::2][:, 0] == 0]
    for column in (1, 2):
        np.testing.assert_allclose(np.bincount(late[:, column], minlength=5) / len(late), [0, 0.25, 0.25, 0.25, 0.25], atol=0.04)


def test_without_alignment_nothing_is_drawn_differently() -> None:
    valid = np.ones((4, 2, 5), bool)
    plain, aligned = (
        draw_dates(np.random.default_rng(3), plan, valid, slots_of(np.arange(4))) for plan in (PLANS["caco"], ALIGNED["caco"])
    )
    assert not np.array_equal(plain, aligned)
    assert not (plain[0::2, 0] % 5 == plain[1::2, 0] % 5).all()


def test_a_place_without_a_common_season_is_named_before_training(tmp_path: Path, make_pack) -> None:
    missing = tuple((4, period, season) for period, seasons in ((0, (0, 1, 2)), (1, (3, 4, 5))) for season in seasons)
    pack = make_pack(tmp_path / "pack", dates=6, missing=missing)
    settings = {"batch_size": 8, "image_size": 32, "crop_scale": (0.2, 1.0), "seed": 0}
    Sampler(pack, PLANS["caco"], **settings)
    with pytest.raises(UserError, match=r"aligned_seasons=true: 1 of 12 places of the pack .* raise imagery.min_seasons to 4 "):
        Sampler(pack, ALIGNED["caco"], **settings)


@pytest.mark.parametrize("objective", ["caco", "simclr_caco"])
def test_both_settings_train_and_change_the_result(tmp_path: Path, make_pack, objective: str) -> None:
    pack = make_pack(tmp_path / "pack", dates=4)
    made = {}
    for name in ("plain", "aligned_seasons", "squared_distances"):
        wanted = {"backbone": "test_resnet", "objective": objective, "threads": 1, "device": "cpu", "epochs": 1}
        options = load_settings(
            "tiny", home=tmp_path, pretraining={**wanted, **({name: True} if name != "plain" else {})}
        ).pretraining
        made[name] = make_encoder(RunConfig(pack=pack, target=tmp_path / name, pretraining=options))
    thresholds = {name: facts.get("change_threshold") for name, facts in made.items()}
    assert len(set(thresholds.values())) == 3
    assert all(np.isfinite(facts["loss"]) for facts in made.values())


def test_alignment_without_a_long_term_distance_is_refused(tmp_path: Path, make_pack) -> None:
    wanted = {"backbone": "test_resnet", "objective": "teco", "aligned_seasons": True}
    options = load_settings("tiny", home=tmp_path, pretraining=wanted).pretraining
    with pytest.raises(UserError, match=r"aligned_seasons=true: objective teco has no long-term distance"):
        make_encoder(RunConfig(pack=make_pack(tmp_path / "pack"), target=tmp_path / "encoder", pretraining=options))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw_dates(np.random.default_rng(0), ALIGNED["teco"], np.ones((2, 2, 3), bool), slots_of(np.arange(2)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
