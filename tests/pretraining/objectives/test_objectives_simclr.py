"""The objectives in the SimCLR framework against a slow, obvious version, and what must not repel what."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from caco_assets.pretraining.objectives import OBJECTIVES, ObjectiveConfig, build
from caco_assets.pretraining.objectives.infonce import infonce
from caco_assets.pretraining.objectives.simclr import SimClr

SLOTS = 40
NAMES = [name for name, kind in OBJECTIVES.items() if not kind.queued]


def make(name: str, *, tau: float = 0.3, dim: int = 7) -> SimClr:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    objective = build(name, ObjectiveConfig(slots=SLOTS, embedding_dim=dim, temperature=tau), backbone, features=5, seed=0)
    assert isinstance(objective, SimClr)
    return objective


def units(generator: torch.Generator, *shape: int) -> Tensor:
    return nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def pairs(half: int, seed: int) -> Tensor:
    places = torch.randperm(SLOTS // 2, generator=torch.Generator().manual_seed(seed))[:half]
    return torch.stack([2 * places, 2 * places + 1], dim=1).flatten()


def slow_space(name: str, i: int, q: Tensor, keys: Tensor, slots: Tensor, label: Tensor, tau: float) -> float:
    """The mean loss of one space, anchor by anchor, negative by negative."""
    count = len(q)
    vectors = [(n, q[n]) for n in range(count)] + [(n, keys[i, n]) for n in range(count)]
    total = 0.0
    for a, (n, anchor) in enumerate(vectors):
        positive = vectors[(a + count) % (2 * count)][1]
        negatives = []
        for m, other in vectors:
            own_place = slots[m] // 2 == slots[n] // 2
            unchanged = name == "simclr_caco" and own_place and label[slots[n]] <= 0
            if m != n and not unchanged:
                negatives.append(other)
        if i > 0:
            negatives += [keys[j, m] for j in range(len(keys)) if j != i for m in range(count)]
        up = math.exp(float(anchor @ positive) / tau)
        total -= math.log(up / (up + sum(math.exp(float(anchor @ k) / tau) for k in negatives)))
    return total / (2 * count)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(half=st.integers(2, 4), dim=st.integers(2, 9), tau=st.sampled_from([0.1, 0.5]), seed=st.integers(0, 99))
def test_the_nt_xent_of_every_space_equals_the_slow_version(name, half, dim, tau, seed) -> None:
    objective = make(name, tau=tau, dim=dim)
    generator = torch.Generator().manual_seed(seed)
    slots, label = pairs(half, seed), torch.randint(-1, 2, (SLOTS,), generator=generator)
    if name == "simclr_caco":
        objective.get_buffer("change.label").copy_(label)
    for i in range(objective.spaces):
        q, keys = units(generator, 2 * half, dim), units(generator, len(objective.plan.views) - 1, 2 * half, dim)
        fast = infonce(objective.similarities(i, q, keys, slots))
        assert fast.item() == pytest.approx(slow_space(name, i, q, keys, slots, label, tau), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_all_views_teach_the_one_encoder(name: str) -> None:
    objective = make(name)
    views = torch.randn(len(objective.plan.views), 6, 3, 9, 9, generator=torch.Generator().manual_seed(1), requires_grad=True)
    objective(views, pairs(3, 0)).loss.backward()
    assert views.grad is not None
    assert all(view.abs().sum() > 0 for view in views.grad)
    assert all(p.grad is not None for p in objective.parameters())


def test_an_unchanged_place_does_not_repel_its_other_period_and_a_changed_one_does() -> None:
    objective = make("simclr_caco")
    slots = pairs(3, 0)
    for label, repels in ((0, False), (1, True), (-1, False)):
        objective.get_buffer("change.label")[slots] = label
        assert objective.left_out(slots).sum().item() == (0 if repels else 6)


def test_the_change_estimate_follows_the_one_encoder() -> None:
    objective = make("simclr_caco")
    slots = pairs(3, 0)
    output = objective(torch.randn(4, 6, 3, 9, 9, generator=torch.Generator().manual_seed(1)), slots)
    assert output.distances is not None
    assert not output.distances.requires_grad
    objective.after_step(output)
    assert objective.get_buffer("change.seen")[slots].tolist() == [1] * 6
    long, short = output.distances
    torch.testing.assert_close(objective.get_buffer("change.ratio")[slots], long / (short + 1e-4))
