"""Figures of dense tasks against torchmetrics, their rules for empty classes, and their intervals."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex, MulticlassJaccardIndex

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.tiles import Tile
from caco_assets.downstream.finetuning.dense_targets import Change, Cover
from caco_assets.downstream.metrics.confusion import Pixels, confusion
from caco_assets.downstream.metrics.paired import paired_gain


def drawn(classes, tiles=12, side=16, seed=0, wrong=0.3):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, classes, (tiles, side, side)).astype(np.uint8)
    guess = np.where(rng.random(masks.shape) < wrong, rng.integers(0, classes, masks.shape), masks).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.1] = IGNORE
    return guess, masks


def outcome(guess, masks, classes, scored, images=6):
    names = tuple(f"class {number}" for number in range(classes))
    tiles = tuple(Tile(f"scene {number % images}", number, 0, group=f"scene {number % images}") for number in range(len(masks)))
    return Pixels(tiles, confusion(guess, masks, classes), names, scored)


def values(pixels, draws=200):
    return {figure.metric: figure for figure in pixels.figures(draws, np.random.default_rng(0))}


def test_change_agrees_with_torchmetrics_over_all_pixels():
    guess, masks = drawn(2)
    found = values(outcome(guess, masks, 2, (1,)))
    pair = torch.from_numpy(guess), torch.from_numpy(masks.astype(np.int64))
    assert found["f1_change"].value == pytest.approx(float(BinaryF1Score(ignore_index=IGNORE)(*pair)), abs=1e-6)
    assert found["iou_change"].value == pytest.approx(float(BinaryJaccardIndex(ignore_index=IGNORE)(*pair)), abs=1e-6)
    assert found["f1_change"].paired
    assert not found["iou_change"].paired


def test_f1_is_of_all_pixels_and_no_mean_over_tiles():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0], masks[1, 0, 0] = 1, 1
    guess = np.zeros_like(masks)
    guess[0] = 1
    # tile means would give (1 + 0) / 2
    assert values(outcome(guess, masks, 2, (1,)))["f1_change"].value == pytest.approx(2 * 16 / (2 * 16 + 1))


def test_mean_iou_agrees_with_torchmetrics():
    guess, masks = drawn(5)
    metric = MulticlassJaccardIndex(5, average="macro", ignore_index=IGNORE)
    wanted = float(metric(torch.from_numpy(guess), torch.from_numpy(masks.astype(np.int64))))
    assert values(outcome(guess, masks, 5, tuple(range(5))))["miou"].value == pytest.approx(wanted, abs=1e-6)


def test_a_class_that_is_nowhere_is_left_out_and_one_that_is_only_predicted_counts_as_zero():
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, :2] = 1
    guess = masks.copy()
    found = values(outcome(guess, masks, 4, (0, 1, 2, 3)))["miou"]
    assert found.value == 1
    assert "class 2 absent, class 3 absent" in found.note
    guess[0, 0, 0] = 3
    assert values(outcome(guess, masks, 4, (0, 1, 2, 3)))["miou"].value == pytest.approx((1 + 7 / 8 + 0) / 3)


def test_what_is_not_scored_still_counts_as_an_error_of_what_is():
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, :2] = 2
    guess = np.zeros_like(masks)
    found = values(outcome(guess, masks, 3, (0, 1)))["miou"]
    assert found.value == pytest.approx(0.5)


def test_no_change_at_all_scores_zero():
    masks = np.zeros((3, 4, 4), np.uint8)
    found = values(outcome(masks, masks, 2, (1,)))
    assert found["f1_change"].value == found["iou_change"].value == 0


def test_ignored_pixels_count_nowhere():
    guess, masks = drawn(3)
    other = np.where(masks == IGNORE, (guess + 1) % 3, guess).astype(np.uint8)
    assert (confusion(guess, masks, 3) == confusion(other, masks, 3)).all()
    assert confusion(guess, masks, 3).sum() == np.count_nonzero(masks != IGNORE)


def test_the_interval_holds_the_value_and_resamples_whole_images():
    guess, masks = drawn(2, tiles=40)
    masks[::4] = 0
    wide = values(outcome(guess, masks, 2, (1,), images=5))["f1_change"]
    narrow = values(outcome(guess, masks, 2, (1,), images=40))["f1_change"]
    assert wide.value == narrow.value
    assert wide.low <= wide.value <= wide.high
    assert "over 5 images" in wide.note
    # a single mosaic is resampled by its tiles
    alone = values(outcome(guess, masks, 2, (1,), images=1))["f1_change"]
    assert alone.low < alone.value < alone.high
    assert "over 40 tiles" in alone.note


def test_a_paired_gain_of_dense_tables_is_the_difference_and_is_tight():
    guess, masks = drawn(2, tiles=60)
    better = np.where((masks == 1) & (np.random.default_rng(5).random(masks.shape) < 0.2), 1, guess).astype(np.uint8)
    a, b = outcome(better, masks, 2, (1,), 20), outcome(guess, masks, 2, (1,), 20)
    gain, low, high = paired_gain(pd.DataFrame(dict(a.table())), pd.DataFrame(dict(b.table())), 500)
    one, other = values(a)["f1_change"], values(b)["f1_change"]
    assert gain == pytest.approx(one.value - other.value)
    assert 0 < low <= gain <= high
    assert high - low < (one.high - one.low) + (other.high - other.low)
    assert paired_gain(pd.DataFrame(dict(a.table())).iloc[::-1], pd.DataFrame(dict(b.table())), 500)[0] == pytest.approx(gain)
    with pytest.raises(UserError, match="not the same"):
        paired_gain(pd.DataFrame(dict(a.table())).iloc[1:], pd.DataFrame(dict(b.table())), 500)


def test_a_table_of_land_cover_gives_back_its_mean_iou():
    guess, masks = drawn(4)
    a = outcome(guess, masks, 4, (0, 1, 2))
    worse = outcome(np.zeros_like(guess), masks, 4, (0, 1, 2))
    gain, _, _ = paired_gain(pd.DataFrame(dict(a.table())), pd.DataFrame(dict(worse.table())), 200)
    assert gain == pytest.approx(values(a)["miou"].value - values(worse)["miou"].value)


def test_the_threshold_of_change_is_the_best_of_a_slow_sweep():
    rng = np.random.default_rng(0)
    masks = (rng.random((4, 16, 16)) < 0.2).astype(np.uint8)
    logits = torch.from_numpy((masks * 1.5 - 2 + rng.normal(0, 1, masks.shape))[:, None].astype(np.float32))
    masks[0] = IGNORE
    kind = Change()
    score, threshold = kind.validation_score(kind.counts_for_validation(logits, masks))
    slow = {}
    for step in range(5, 100, 5):
        guess = kind.answers(logits, step / 100)
        slow[step / 100] = values(outcome(guess, masks, 2, (1,)))["f1_change"].value
    assert score == pytest.approx(max(slow.values()), abs=5e-3)
    assert slow[threshold] == pytest.approx(max(slow.values()), abs=5e-3)


def test_losses_are_means_over_the_pixels_that_count():
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.integers(0, 2, (2, 8, 8)).astype(np.uint8))
    masks[:, :4] = IGNORE
    logits = torch.from_numpy(rng.normal(size=(2, 1, 8, 8)).astype(np.float32))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0, 4:], masks[:, 4:].float())
    assert float(Change().loss(logits, masks)) == pytest.approx(float(wanted), rel=1e-5)
    scores = torch.from_numpy(rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    wanted = torch.nn.functional.cross_entropy(scores[..., 4:, :], masks[:, 4:].long())
    assert float(Cover(3, (0, 1, 2)).loss(scores, masks)) == pytest.approx(float(wanted), rel=1e-5)
    masks[:] = IGNORE
    assert float(Cover(3, (0, 1, 2)).loss(scores, masks)) == float(Change().loss(logits, masks)) == 0
