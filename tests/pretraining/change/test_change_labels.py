"""The change estimate: its moving averages, the mixture's threshold, the labels and their picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caco_assets.pretraining.change.estimate import ChangeState, crossing, draw_histogram, label_changes


def two_groups(changed: int = 60, unchanged: int = 140) -> np.ndarray:
    random = np.random.default_rng(3)
    return np.concatenate([random.normal(1, 0.1, unchanged), random.normal(2, 0.4, changed)])


@settings(max_examples=20, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True), max_size=6), seed=st.integers(0, 99))
def test_averages_equal_a_loop_over_samples(batches: list[list[int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    state, slow, seen = ChangeState(9, beta=0.8), np.zeros((9, 3)), np.zeros(9, int)
    for slots in batches:
        values = random.random((3, len(slots))).astype(np.float32)
        state.update(torch.tensor(slots), *torch.from_numpy(values))
        for k, slot in enumerate(slots):
            slow[slot] = (4 * slow[slot] + values[:, k]) / 5 if seen[slot] else values[:, k]
            seen[slot] += 1
    np.testing.assert_allclose(torch.stack([state.long, state.short, state.ratio], 1).numpy(), slow, atol=1e-6)
    np.testing.assert_array_equal(state.seen.numpy(), seen)
    if batches:
        np.testing.assert_array_equal(torch.stack([state.last_long, state.last_ratio])[:, batches[-1]].numpy(), values[[0, 2]])


@pytest.mark.parametrize(("kind", "expected"), [("ema_ratio", 0.8 * 3 + 0.2 * 8), ("ratio", 8.0), ("distance", 6.0)])
def test_all_three_estimates_are_kept_and_the_named_one_makes_the_labels(kind: str, expected: float) -> None:
    state = ChangeState(4, beta=0.8, kind=kind)
    slot = torch.tensor([2])
    for ratio in (3.0, 8.0):
        state.update(slot, torch.tensor([ratio - 2]), torch.ones(1), torch.tensor([ratio]))
    assert state.estimate[2].item() == pytest.approx(expected)
    assert {name: values[2].item() for name, values in state.estimates.items()} == pytest.approx(
        {"distance": 6, "ratio": 8, "ema_ratio": 4}
    )


def test_before_the_first_labelling_everything_is_unchanged() -> None:
    assert (ChangeState(4, beta=0.8).label == 0).all()


def test_two_groups_are_told_apart_at_the_crossing_of_the_components() -> None:
    values = two_groups()
    labelling = label_changes(values, np.ones(200, bool), seed=0, monotone=True)
    assert (labelling.label == (values >= labelling.threshold)).all()
    assert labelling.label[140:].mean() > 0.95
    assert labelling.label[:140].mean() < 0.05
    density = [w * np.exp(-(((labelling.threshold - m) / s) ** 2) / 2) / s for w, m, s in labelling.mixture.T]
    assert density[0] == pytest.approx(density[1])


def test_a_wide_high_component_claims_tiny_values_only_without_the_monotone_threshold() -> None:
    values = np.concatenate([two_groups(), [0.1]])
    seen = np.ones(201, bool)
    assert label_changes(values, seen, seed=0, monotone=False).label[-1] == 1
    assert label_changes(values, seen, seed=0, monotone=True).label[-1] == 0


def test_the_same_seed_gives_the_same_labels_and_the_global_generator_is_left_alone() -> None:
    values = np.random.default_rng(0).random(80)
    before = np.random.get_state()[1].copy()
    first, again = (label_changes(values, values > 0.1, seed=5, monotone=True) for _ in range(2))
    label_changes(values, values > 0.1, seed=None, monotone=True)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.threshold == again.threshold
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("found", [[], [1.5], [1.5, 1.5, 1.5]])
def test_without_two_different_values_nothing_is_changed(found: list[float]) -> None:
    values, seen = np.zeros(6), np.zeros(6, bool)
    values[: len(found)], seen[: len(found)] = found, True
    labelling = label_changes(values, seen, seed=0, monotone=True)
    np.testing.assert_array_equal(labelling.label, np.where(seen, 0, -1))
    assert labelling.threshold == np.inf


@given(
    weight=st.floats(0.01, 0.99),
    gap=st.floats(0.01, 5),
    deviations=st.tuples(st.floats(0.05, 2), st.floats(0.05, 2)),
)
def test_the_threshold_is_the_first_point_from_the_lower_mean_where_the_higher_component_wins(weight, gap, deviations) -> None:
    mixture = np.array([[1 - weight, weight], [1.0, 1.0 + gap], list(deviations)])
    threshold = crossing(mixture)
    x = np.linspace(1, 1 + 20 * max(gap, *deviations), 20_001)
    log_density = np.log(mixture[0] / mixture[2]) - ((x[:, None] - mixture[1]) / mixture[2]) ** 2 / 2
    wins = np.flatnonzero(log_density[:, 1] >= log_density[:, 0])
    if len(wins):
        assert threshold == pytest.approx(x[wins[0]], abs=2 * (x[1] - x[0]))
    else:
        # narrow wins between two grid points, or far outside the grid, or none at all
        assert threshold >= x[-1] or log_density[np.abs(x - threshold).argmin()] @ [1, -1] < 0.1


def test_labels_threshold_and_mixture_survive_a_state_dict() -> None:
    state, other = (ChangeState(200, beta=0.8) for _ in range(2))
    values = torch.from_numpy(two_groups()).float()
    state.update(torch.arange(200), values, values, values)
    state.relabel(seed=0, monotone=True)
    other.load_state_dict(state.state_dict())
    assert other.summary() == state.summary()
    assert other.summary()["changed_share"] == pytest.approx(0.3, abs=0.02)
    assert torch.equal(other.mixture, state.mixture)


@pytest.mark.parametrize("seen", [0, 1, 200])
def test_the_picture_is_drawn_with_and_without_a_threshold(tmp_path: Path, seen: int) -> None:
    state = ChangeState(200, beta=0.8)
    values = torch.from_numpy(two_groups()).float()[:seen]
    state.update(torch.arange(seen), values, values, values)
    state.relabel(seed=0, monotone=True)
    draw_histogram(tmp_path / "histogram.png", state)
    assert (tmp_path / "histogram.png").read_bytes().startswith(b"\x89PNG")
    assert ("change_threshold" in state.summary()) == (seen == 200)
