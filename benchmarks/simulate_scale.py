"""A backfill of 100 000, 1 000 000 and 10 000 000 places on paper: queue, throttling, retries, money, from measured unit costs.

The unit costs are the rows of `RESULTS.md` named in `Unit`; limits of others and prices are inputs, with the date at which they
were written down. Nothing here touches a network. `simulate` goes through the work in steps of some seconds:

* A queue holds the shards; workers (spot machines that come after a delay) take the next one each.
* A worker asks for as many requests as its cores, its line and its connections allow. What all ask for together beyond the
  provider's limit is answered with 429: a repeat, after which those workers halve their pace (as waits that double do) and then
  raise it step by step.
* A machine is taken back at random; its shard goes to the head of the queue with all but the last seconds of its work (journal),
  and another machine comes after the delay.
* Finished shards are written to the store in parts, each a PUT, of which a prefix takes so many per second; the rest wait.

The other stages have one machine and no queue: they are multiplied out. `python benchmarks/simulate_scale.py` prints the tables of
`docs/scaling.md` and one JSON object; `--price-core-hour` and its like change the inputs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

SIZES = (100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Unit:
    """What a unit of work costs, measured (see `RESULTS.md`)."""

    requests_per_chip: float = 7.4
    """Ingest over HTTP: four chips of a scene in the shard."""
    download_mb_per_chip: float = 2.72
    """The same row; seven bands and the classification."""
    core_s_per_chip: float = 0.038
    """The same row."""
    latency_s: float = 0.05
    """Before each answer, in that benchmark."""
    archived_mb_per_chip: float = 0.44
    """`benchmarks/cost.py` on real pixels, seven bands (`docs/imagery.md`)."""
    plan_s_per_place: float = 85.8 / 100_000
    """Planning, 100 000 places."""
    plan_bytes_per_place: float = 306e6 / 100_000
    """The same row: `scenes.parquet`."""
    sample_s_per_place: float = 17.9 / 1_000_000
    """Sampling, one million places."""
    hash_mb_per_s: float = 740.0
    """md5 of one core (742, 743, 749 MB/s of CPU time, 2026-11-22, the machine of `RESULTS.md`), as DVC hashes."""


@dataclass(frozen=True)
class World:
    """What the work runs on: inputs, not measurements (written down 2026-11)."""

    workers: int = 8
    """Machines of a backfill."""
    cores: int = 4
    """Of each; one thread per core decodes."""
    connections: int = 32
    """Of each."""
    line_mb_per_s: float = 300.0
    """Of each, to the provider."""
    provider_requests_per_s: float = 5_000.0
    """What it answers to all of us together; more is 429."""
    store_puts_per_s: float = 3_500.0
    """Of one prefix of an object store."""
    part_mb: float = 64.0
    """Of an upload in parts."""
    losses_per_hour: float = 0.05
    """Spot machines taken back, each machine's chance in an hour."""
    lost_s: float = 30.0
    """Work that a machine taken back had not yet spooled."""
    start_s: float = 180.0
    """Until a machine is there: node, image, imports."""
    dates: int = 10
    """Of a place."""
    places_per_shard: int = 500
    images_per_s: float = 2_500.0
    """Of one GPU at 224 px, ResNet-18, bfloat16: an assumption; `benchmarks/gpu_pretrain.py` measures it where there is one."""
    gpus: int = 8
    epochs: int = 100
    price_core_hour: float = 0.02
    """Spot."""
    price_gpu_hour: float = 1.5
    """Spot."""
    price_tb_month: float = 21.0
    price_million_puts: float = 5.0
    price_million_requests: float = 0.0
    """To the provider; public buckets in their own region ask nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a backfill went."""

    shards: int
    hours: float
    requests: float
    """Answered with data."""
    throttled: float
    """Answered with 429."""
    losses: int
    """Machines taken back while they worked."""
    longest_queue: int
    half_queue: int
    """Shards waiting when half of the time is over."""
    busy: float
    """Share of the machines' time in which they had a shard."""
    pace: float
    """Mean share of their own pace that workers could use."""
    peak_puts_per_s: float
    waiting_puts: float
    """Most PUTs that waited for the store at once."""


def simulate(places: int, unit: Unit, world: World, seed: int = 0, step_s: float = 5.0) -> Outcome:
    """Go through the backfill; see the module's description."""
    rng = np.random.default_rng(seed)
    shards = -(-places // world.places_per_shard)
    per_shard = world.places_per_shard * world.dates * unit.requests_per_chip
    own = own_pace(unit, world) * unit.requests_per_chip * step_s  # requests of a step
    left = np.zeros(world.workers)  # requests of the shard at hand
    ready = np.full(world.workers, world.start_s) + rng.uniform(0, 60, world.workers)
    pace = np.full(world.workers, 1 / 16)
    given_back: list[float] = []
    fresh, done, losses, now = shards, 0, 0, 0.0
    answered = throttled = worked = paces = busy_steps = peak = waiting = most_waiting = 0.0
    queues = []
    puts = np.ceil(world.places_per_shard * world.dates * unit.archived_mb_per_chip / world.part_mb) + 3
    while done < shards:
        there = ready <= now
        for worker in np.flatnonzero(there & (left <= 0)):
            if given_back:
                left[worker] = given_back.pop()
            elif fresh:
                fresh, left[worker] = fresh - 1, per_shard
        queues.append(fresh + len(given_back))
        at_work = there & (left > 0)
        asked = np.where(at_work, np.minimum(own * pace, left), 0.0)
        limit = world.provider_requests_per_s * step_s
        share = min(limit / asked.sum(), 1.0) if asked.sum() > 0 else 1.0
        answered, throttled = answered + asked.sum() * share, throttled + asked.sum() * (1 - share)
        left -= asked * share
        refused = at_work & (rng.random(world.workers) < (1 - share))
        pace = np.where(refused, np.maximum(pace / 2, 1 / 64), np.where(at_work, np.minimum(pace + 1 / 32, 1.0), pace))
        finished = at_work & (left <= 1e-6)
        done, left[finished] = done + int(finished.sum()), 0.0
        waiting += finished.sum() * puts
        written = min(waiting, world.store_puts_per_s * step_s)
        waiting, peak, most_waiting = waiting - written, max(peak, written / step_s), max(most_waiting, waiting - written)
        lost = there & (rng.random(world.workers) < world.losses_per_hour * step_s / 3600)
        for worker in np.flatnonzero(lost):
            if left[worker] > 0:
                again = min(left[worker] + own / step_s * pace[worker] * world.lost_s, per_shard)
                given_back.append(float(again))
                losses += 1
            left[worker], ready[worker], pace[worker] = 0.0, now + world.start_s, 1 / 16
        worked, paces, busy_steps = worked + at_work.sum(), paces + pace[at_work].sum(), busy_steps + world.workers
        now += step_s
    return Outcome(
        shards=shards,
        hours=now / 3600,
        requests=answered,
        throttled=throttled,
        losses=losses,
        longest_queue=max(queues),
        half_queue=queues[len(queues) // 2],
        busy=worked / busy_steps,
        pace=paces / max(worked, 1),
        peak_puts_per_s=peak,
        waiting_puts=most_waiting,
    )


def own_pace(unit: Unit, world: World) -> float:
    """Chips per second of a machine that nobody slows: the least of its cores, its line and its connections."""
    return min(paces(unit, world).values())


def paces(unit: Unit, world: World) -> dict[str, float]:
    """What could limit a machine → chips per second."""
    return {
        "cores": world.cores / unit.core_s_per_chip,
        "line": world.line_mb_per_s / unit.download_mb_per_chip,
        "connections": world.connections / unit.latency_s / unit.requests_per_chip,
    }


def stages(places: int, unit: Unit, world: World, went: Outcome) -> list[tuple[str, float, float, float]]:
    """Stage, hours, TB kept, money (of the hours, and of one month's storage)."""
    chips = places * world.dates
    archive_tb = chips * unit.archived_mb_per_chip / 1e6
    pack_tb = chips * 264 * 264 * 3 / 1e12
    images = places * 4 * world.epochs  # a place is two samples of two images an epoch
    training = images / (world.images_per_s * world.gpus) / 3600
    machines = went.hours * world.workers * world.cores
    puts = went.shards * (np.ceil(world.places_per_shard * world.dates * unit.archived_mb_per_chip / world.part_mb) + 3)
    month, core = world.price_tb_month, world.price_core_hour
    requests = went.requests + went.throttled
    rows = [
        ("sampling", places * unit.sample_s_per_place / 3600, 0.0, 0.0),
        ("planning", places * unit.plan_s_per_place / 3600, places * unit.plan_bytes_per_place / 1e12, 0.0),
        ("archive", went.hours, archive_tb, machines * core + puts / 1e6 * world.price_million_puts),
        ("hashing the archive (DVC, one core)", archive_tb * 1e6 / unit.hash_mb_per_s / 3600, 0.0, 0.0),
        ("pack (one machine, bound by reading)", archive_tb * 1e6 / world.line_mb_per_s / 3600, pack_tb, 0.0),
        ("pretraining", training, 0.0, training * world.gpus * world.price_gpu_hour),
    ]
    extra = {"archive": requests / 1e6 * world.price_million_requests}
    one_machine = {"sampling", "planning", rows[3][0], rows[4][0]}
    return [
        (name, hours, tb, money + extra.get(name, 0.0) + tb * month + (hours * world.cores * core if name in one_machine else 0.0))
        for name, hours, tb, money in rows
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for one in fields(World):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    seed = options.pop("seed")
    world, unit, found = World(), Unit(), {}
    given = {name: value for name, value in options.items() if value is not None}
    # so that partitions stay a few thousand, which Dagster's pages show well
    scaled = {10_000_000: {"places_per_shard": 2_500}}
    print(
        "| places | machines | shards | hours | requests | 429 | lost | queue at half time | busy | own pace used | PUT/s at most |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for places in SIZES:
        this = replace(world, **{**scaled.get(places, {}), **given})
        went = simulate(places, unit, this, seed)
        found[places] = {**asdict(went), "stages": stages(places, unit, this, went)}
        print(
            f"| {places:,} | {this.workers} | {went.shards:,} | {went.hours:.1f} | {went.requests / 1e6:,.1f} M "
            f"| {went.throttled / max(went.requests, 1):.1%} | {went.losses} | {went.half_queue:,} | {went.busy:.0%} "
            f"| {went.pace:.0%} "
            f"| {went.peak_puts_per_s:.0f} |"
        )
    for places in SIZES:
        print(f"\n{places:,} places\n\n| stage | hours | TB kept | money |\n|---|---|---|---|")
        for name, hours, tb, money in found[places]["stages"]:
            print(f"| {name} | {hours:,.1f} | {tb:,.2f} | {money:,.0f} |")
    print(json.dumps({"benchmark": "simulate_scale", "seed": seed, "sizes": found}))


if __name__ == "__main__":
    main()
