"""Each objective's loss against a slow, obvious version, its gradient, and what must not reach it."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.objectives import IMPROVED, OBJECTIVES, REFERENCE, ObjectiveConfig, build
from caco_assets.pretraining.objectives.config import Switches
from caco_assets.pretraining.objectives.infonce import embedding_std, infonce
from caco_assets.pretraining.objectives.momentum_contrast import Contrastive

SLOTS = 60
QUEUED = [name for name, kind in OBJECTIVES.items() if kind.queued]
LONLAT = np.random.default_rng(0).uniform((-180, -60), (180, 70), (SLOTS // 2, 2))


def tiny_backbone(bands: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(bands, 5, 3, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def make(name: str, *, queue: int = 12, dim: int = 7, seed: int = 0, switches: Switches = IMPROVED, **options) -> Contrastive:
    config = ObjectiveConfig(
        slots=SLOTS, embedding_dim=dim, queue_size=queue, switches=switches, lonlat=LONLAT, geo_clusters=4, **options
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = tiny_backbone()
    return build(name, config, backbone, features=5, seed=seed)


def batch(objective: Contrastive, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(len(objective.plan.views), size, 3, 9, 9, generator=generator)
    places = torch.randperm(SLOTS // 2, generator=generator)[: -(-size // 2)]
    slots = torch.stack([2 * places, 2 * places + 1], dim=1).flatten()[:size]
    return views, slots


def units(generator: torch.Generator, *shape: int) -> Tensor:
    return nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def slow_space(name: str, i: int, q: Tensor, keys: Tensor, queue: Tensor, label: Tensor, tau: float) -> float:
    """The mean loss of one space, negative by negative; nothing but the formula."""
    total, N = 0.0, len(q)
    for r in range(N):
        negatives = []
        if name.startswith("moco") or name in ("seco", "gssl"):
            negatives += list(queue.T)
        else:
            negatives += [queue[:, k] for k in range(queue.shape[1]) if k % 2 == r % 2]
            for n in range(N):
                own_place = n // 2 == r // 2
                unchanged = name == "caco" and own_place and label[r] <= 0
                if n % 2 != r % 2 and not unchanged:
                    negatives.append(keys[i, n])
        if i > 0:
            negatives += [keys[j, n] for j in range(len(keys)) if j != i for n in range(N)]
        positive = math.exp(float(q[r] @ keys[i, r]) / tau)
        total -= math.log(positive / (positive + sum(math.exp(float(q[r] @ k) / tau) for k in negatives)))
    return total / N


@pytest.mark.parametrize("name", QUEUED)
@settings(max_examples=15, deadline=None)
@given(
    half=st.integers(1, 4),
    odd=st.booleans(),
    queue=st.integers(1, 6),
    dim=st.integers(2, 9),
    tau=st.sampled_from([0.07, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_loss_of_every_space_equals_the_slow_version(name, half, odd, queue, dim, tau, seed) -> None:
    objective = make(name, queue=2 * queue, dim=dim, seed=seed, temperature=tau).double()
    size = 2 * half + (odd and not objective.plan.paired)
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randperm(SLOTS // 2, generator=generator)[: half + 1].repeat_interleave(2)[:size] * 2
    slots = slots + torch.arange(size) % 2
    label = torch.randint(-1, 2, (SLOTS,), generator=generator)
    if name == "caco":
        objective.get_buffer("change.label").copy_(label)
    views = len(objective.plan.views) - 1
    for i in range(objective.spaces):
        q, keys = units(generator, size, dim), units(generator, views, size, dim)
        fast = infonce(objective.similarities(i, q, keys, slots))
        slow = slow_space(name, i, q, keys, objective.queue.columns[i], label[slots], tau)
        assert fast.item() == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("name", QUEUED)
def test_the_gradient_of_every_space_is_that_of_finite_differences(name: str) -> None:
    objective = make(name, temperature=0.3).double()
    generator = torch.Generator().manual_seed(1)
    slots = torch.arange(6)
    for i in range(objective.spaces):
        q = units(generator, 6, 7).requires_grad_()
        keys = units(generator, len(objective.plan.views) - 1, 6, 7)
        assert torch.autograd.gradcheck(lambda q, i=i, keys=keys: infonce(objective.similarities(i, q, keys, slots)), (q,))


@pytest.mark.parametrize("name", QUEUED)
def test_only_the_query_side_learns_and_the_key_side_follows(name: str) -> None:
    objective = make(name, momentum=0.75)
    before = copy.deepcopy(objective.encoder_k.state_dict())
    with torch.no_grad():
        objective.encoder_q[0].weight.add_(1)
    objective.before_step()
    torch.testing.assert_close(objective.encoder_k[0].weight, before["0.weight"] + 0.25)
    torch.testing.assert_close(objective.encoder_k[1].running_mean, before["1.running_mean"])
    objective(*batch(objective, 6)).loss.backward()
    assert all(p.grad is not None for p in [*objective.encoder_q.parameters(), *objective.heads_q.parameters()])
    assert all(p.grad is None for p in [*objective.encoder_k.parameters(), *objective.heads_k.parameters()])


@pytest.mark.parametrize("name", QUEUED)
def test_reference_and_improved_give_the_same_step(name: str) -> None:
    steps = []
    for switches in (IMPROVED, REFERENCE):
        objective = make(name, switches=switches)
        for k in range(3):
            objective.before_step()
            output = objective(*batch(objective, 6, seed=k))
            objective.zero_grad()
            output.loss.backward()
            objective.after_step(output)
        steps.append((output.loss.detach(), objective.queue.columns.clone(), objective.encoder_q[0].weight.grad))
    torch.testing.assert_close(steps[0], steps[1])


def test_the_improved_queue_waits_for_the_backward_pass_and_the_reference_queue_does_not() -> None:
    for switches, moved in ((IMPROVED, 0), (REFERENCE, 6)):
        objective = make("seco", switches=switches)
        output = objective(*batch(objective, 6))
        assert objective.queue.position.item() == moved
        objective.after_step(output)
        assert objective.queue.position.item() == 6


def test_the_queue_is_a_ring_that_keeps_the_newest_keys_in_the_order_of_the_batch() -> None:
    objective = make("moco_v2", queue=10)
    keys = torch.randn(1, 14, 7)
    objective.queue.enqueue(keys[:, :6])
    objective.queue.enqueue(keys[:, 6:])
    torch.testing.assert_close(objective.queue.columns[0, :, :4].T, keys[0, 10:])
    torch.testing.assert_close(objective.queue.columns[0, :, 4:].T, keys[0, 4:10])
    assert objective.queue.position.item() == 4


def test_an_unchanged_place_does_not_repel_its_other_period_and_a_changed_one_does() -> None:
    objective = make("caco")
    views, slots = batch(objective, 6)
    for label, repels in ((0, False), (1, True), (-1, False)):
        objective.get_buffer("change.label")[slots] = label
        masked = [torch.isneginf(logits).sum().item() for logits in objective(views, slots).logits]
        assert masked == [0 if repels else 6] * 3


def test_in_reference_mode_a_place_never_seen_counts_as_changed() -> None:
    objective = make("caco", switches=REFERENCE)
    views, slots = batch(objective, 6)
    objective.get_buffer("change.label")[slots] = -1
    assert not torch.isneginf(objective(views, slots).logits[0]).any()


def test_the_long_term_distance_is_shared_by_the_pair_and_can_be_squared() -> None:
    plain, squared = (make("caco", switches=Switches(squared_distances=flag)) for flag in (False, True))
    views, slots = batch(plain, 6)
    long, short = plain(views, slots).distances
    torch.testing.assert_close(long[0::2], long[1::2])
    assert len(set(short.tolist())) == 6
    torch.testing.assert_close(squared(views, slots).distances, torch.stack([long, short]) ** 2)


@pytest.mark.parametrize(("estimate", "expected"), [("ema_ratio", 0.8 * 2 + 0.2 * 7), ("ratio", 7.0), ("distance", 7.0)])
def test_only_the_moving_average_remembers(estimate: str, expected: float) -> None:
    state = make("caco", change_estimate=estimate).change
    slot = torch.tensor([3])
    for value in (2.0, 7.0):
        state.update(slot, *torch.full((3, 1), value))
    assert state.estimate[3].item() == pytest.approx(expected)
    assert state.by_ratio == (estimate != "distance")


def test_caco_without_labels_is_teco_without_its_own_other_period() -> None:
    caco, teco = make("caco"), make("teco")
    views, slots = batch(caco, 6)
    caco.get_buffer("change.label").fill_(1)
    torch.testing.assert_close(caco(views, slots).loss, teco(views, slots).loss)


def test_the_spread_of_embeddings_is_one_on_the_sphere_and_zero_at_a_point() -> None:
    spread = units(torch.Generator().manual_seed(0), 2, 4000, 16)
    assert embedding_std(spread).item() == pytest.approx(1, abs=0.02)
    assert embedding_std(spread[:, :1].expand(2, 50, 16)).item() == pytest.approx(0, abs=1e-7)
    # one collapsed space is enough
    assert embedding_std(torch.stack([spread[0], spread[1, :1].expand(4000, 16)])).item() == pytest.approx(0, abs=1e-7)


def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    same, again, other = make("caco", seed=1), make("caco", seed=1), make("caco", seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(same.state_dict(), again.state_dict(), equal_nan=True)
    assert not torch.equal(same.queue.columns, other.queue.columns)


def test_an_unknown_objective_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"pretraining.objective=cacao: .* did you mean caco\? choose one of moco_v2, .*caco"):
        make("cacao")
