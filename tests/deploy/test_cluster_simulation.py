"""The simulated backfill keeps its books: nothing is lost, limits bind, and it is the same for a seed."""

from dataclasses import replace

import pytest
import simulate_scale as sim

pytestmark = pytest.mark.deploy

PLACES = 20_000
CALM = sim.World(workers=8, losses_per_hour=0.0, provider_requests_per_s=1e9)


def run(world, seed=0):
    return sim.simulate(PLACES, sim.Unit(), world, seed)


def test_every_request_is_made_and_an_undisturbed_backfill_lasts_as_long_as_its_pace_says():
    went = run(CALM)
    assert went.shards == 40
    assert went.requests == pytest.approx(PLACES * 10 * 7.4)
    assert went.throttled == went.losses == 0
    ideal = PLACES * 10 / sim.own_pace(sim.Unit(), CALM) / 8 / 3600
    assert ideal < went.hours < ideal + 0.15  # machines start for some minutes, and slowly


def test_a_provider_that_answers_half_of_what_is_asked_makes_it_last_twice_as_long_and_refuses_some():
    free = sim.own_pace(sim.Unit(), CALM) * 7.4 * 8
    limited = [run(replace(CALM, provider_requests_per_s=free * share)) for share in (0.5, 0.25)]
    assert all(went.throttled > 0 for went in limited)
    assert limited[1].hours / limited[0].hours == pytest.approx(2.0, rel=0.2)
    assert limited[0].pace > limited[1].pace
    # those who halve their pace leave few repeats
    assert all(went.throttled / went.requests < 0.5 for went in limited)


def test_machines_taken_back_cost_some_work_and_lose_no_shard():
    often = run(replace(CALM, losses_per_hour=5.0))
    assert often.losses > 0
    assert often.requests >= PLACES * 10 * 7.4
    assert often.hours > run(CALM).hours


def test_a_store_that_takes_few_parts_makes_them_wait():
    assert run(replace(CALM, store_puts_per_s=1.0)).waiting_puts > 0
    assert run(CALM).waiting_puts == 0


def test_the_same_seed_gives_the_same_run():
    world = replace(CALM, losses_per_hour=1.0)
    assert run(world, 3) == run(world, 3)
    assert run(world, 3) != run(world, 4)
