"""Fills one shard of the archive: tries the ranked scenes of each place until its seasons have clear chips."""

from __future__ import annotations

import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import rasterio

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.imagery.archive.chip import encode
from caco_assets.imagery.archive.refusals import LASTING, main_reason
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, member_name, pack_tar, write_index, write_quarantine, write_tar
from caco_assets.imagery.archive.tar_store import TAR, store_tar, tar_size
from caco_assets.imagery.geometry.chip_grid import chip_footprints
from caco_assets.imagery.ingest.journal import UNTRIED, IngestJournal, JournalEntry, Key
from caco_assets.imagery.ingest.place import Place
from caco_assets.imagery.ingest.reuse import ReusedOutcome
from caco_assets.imagery.reading.gdal import GDAL_OPTIONS
from caco_assets.imagery.reading.http.cog_reader import RemoteFiles, is_http
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy
from caco_assets.imagery.reading.scene_reader import Outcome, SceneFiles, Want, read_chips
from caco_assets.imagery.scenes.hrefs import unpack
from caco_assets.imagery.scenes.stac_item import BAND_MARK
from caco_assets.observability.metrics import count
from caco_assets.settings import ServerLimits

logger = logging.getLogger(__name__)

SAME_PASS = timedelta(minutes=30)
"""Scenes of a place closer in time than this come from one overpass (a neighboring tile, a second processing): one acquisition."""
CHIPS_AT_ONCE = 16
"""Maximum chips of a scene that one thread reads at once."""
_NEAR_M = 10_240.0
"""Chips in one strip of this height are neighbors: two rows of a Sentinel-2 band's blocks."""
_AHEAD = 4
"""Groups queued for a free thread."""
_LANDMARKS = 8

Row = dict[str, Any]


@dataclass
class SeasonSlot:
    """One period and season of a place: candidates not yet tried, and the chip once there is one."""

    candidates: list[Row]
    chosen: Row | None = None
    clear_fraction: float = 0.0
    entry: JournalEntry = UNTRIED
    """Of the chip in the journal."""


@dataclass
class PlaceState:
    """The season slots of one place, and the scenes already refused for it."""

    place: Place
    slots: dict[tuple[int, int], SeasonSlot] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Items that gave no chip: the place's other slots do not try them again."""

    def requests(self) -> list[tuple[SeasonSlot, Row]]:
        """The next scene to try for each slot that needs one; scenes of other seasons only once its own are used up."""
        found = []
        for period in sorted({period for period, _ in self.slots}):
            slots = [slot for (own, _), slot in sorted(self.slots.items()) if own == period]
            wanting = [slot for slot in slots if slot.chosen is None]
            for slot in wanting:
                slot.candidates = [row for row in slot.candidates if row["item_id"] not in self.refused]
            taken = [slot.chosen["datetime"] for slot in slots if slot.chosen]
            found += self._next(wanting, taken, "planned") or self._next(wanting, taken, "widened")
        return found

    @staticmethod
    def _next(slots: list[SeasonSlot], taken: list[datetime], status: str) -> list[tuple[SeasonSlot, Row]]:
        """For each slot its first candidate of that status whose acquisition no other slot has or is trying.

        A skipped candidate stays listed: the other slot may still refuse it.
        """
        taken, found = list(taken), []
        for slot in slots:
            for row in slot.candidates:
                if row["status"] == status and all(abs(row["datetime"] - other) >= SAME_PASS for other in taken):
                    taken.append(row["datetime"])
                    slot.candidates.remove(row)
                    found.append((slot, row))
                    break
        return found

    def clear_dates(self) -> Counter[int]:
        """Seasons served, per period."""
        return Counter(period for (period, _), slot in self.slots.items() if slot.chosen)


Request = tuple[PlaceState, SeasonSlot, Row]
"""A scene to try for a slot of a place."""


@dataclass(frozen=True)
class Concurrency:
    """How much runs concurrently; the result does not depend on it."""

    workers: int = 2
    """Threads that decode and encode pixels; they also read local files."""
    connections: int = 32
    """Concurrent HTTP requests."""
    patience: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True)
class ShardJob:
    """One shard to fill."""

    shard: int
    places: list[Place]
    """By location id."""
    rows: list[Row]
    """Of `scenes.parquet`, sorted by location, period, season, rank."""
    want: Want
    """Bands, least clear share, folder of the files."""
    min_seasons: int
    """Clear dates required per place and period; the chips of a place with fewer are not archived."""
    concurrency: Concurrency = field(default_factory=Concurrency)
    reused: Iterable[ReusedOutcome] = ()
    """Outcomes of an earlier vintage, which are not read again; the result is the same."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    """Of the providers' responses."""
    changed: frozenset[str] = frozenset()
    """Items whose files changed since an interrupted run began: what it read of them does not count."""
    root: str | None = None
    """Address of the shard's folder in an object store, which receives the tar; None: the tar stays in the shard's folder."""


def fill_shard(target: Path, job: ShardJob) -> Facts:
    """Write `chips.tar`, `chips.parquet` and `quarantine.parquet` of one shard to the folder `target`.

    The result depends only on the places, the rows of `scenes.parquet` and the pixels: not on concurrency or interruptions. The
    outcomes of an interrupted run are in `journal_folder(target)`, which the caller removes when the shard is finished.

    Returns:
        Facts: `places`, `places_complete`, `chips`, `taken_over` (of them, reused), `widened`, `clear_fraction` (mean), `refused`
        (reason → count), `bytes`.

    Raises:
        UserError: a provider does not serve its files; chips already read are kept.
    """
    shutil.rmtree(target, ignore_errors=True)
    states = {place.location_id: PlaceState(place) for place in job.places}
    quarantine = _fill_slots(states, job)
    wanted = sum(len(state.slots) for state in states.values())
    with IngestJournal(journal_folder(target)) as journal:
        _forget(journal, job)
        reused = _add_reused(journal, job.reused)
        if reused:
            count("caco_chips_taken_over", len(reused))
            logger.info(f"shard {job.shard:04d}: {len(reused)} outcomes of an earlier vintage are reused")
        known_chips = sum(entry.reason is None for entry in journal.entries.values())
        progress = Progress(f"shard {job.shard:04d}", wanted, "chips", done=known_chips)
        with _reader_pool(job) as pool:
            while requests := [(state, *request) for state in states.values() for request in state.requests()]:
                for state, slot, row, entry, fresh in _outcomes(pool, requests, journal):
                    if entry.reason is not None:
                        state.refused.add(row["item_id"])
                        quarantine.append(_refusal(row, job.shard, entry.reason, entry.detail, entry.clear_fraction))
                    else:
                        slot.chosen, slot.clear_fraction, slot.entry = row, entry.clear_fraction or 0.0, entry
                        progress.advance(int(fresh))
                        count("caco_chips", int(fresh))
        kept = []
        for state in states.values():
            dates = state.clear_dates()
            if min(dates[0], dates[1]) >= job.min_seasons:
                kept.append(state)
            else:
                quarantine.append(_place_refusal(state, job, dates))
        target.mkdir(parents=True)
        facts = _write(target, journal, kept, job, reused)
    write_quarantine(target / QUARANTINE, quarantine)
    progress.close()
    refused = dict(sorted(Counter(row["reason"] for row in quarantine).items()))
    if not kept and quarantine:
        logger.warning(f"shard {job.shard:04d}: no chip at all: {main_reason(quarantine)}")
    for reason, number in refused.items():
        count("caco_quarantined", number, reason=reason)
    return {"places": len(job.places), "places_complete": len(kept), **facts, "refused": refused}


def _fill_slots(states: dict[str, PlaceState], job: ShardJob) -> list[Row]:
    """Give each place its candidates; returns a refusal for each slot without any."""
    refused = []
    for row in job.rows:
        slot = states[row["location_id"]].slots.setdefault((row["period"], row["season"]), SeasonSlot([]))
        if row["status"] == "missing":
            refused.append(_refusal(row, job.shard, "no_scene", "the catalog has no scene of the place in this period"))
        else:
            slot.candidates.append(row)
    return refused


def _forget(journal: IngestJournal, job: ShardJob) -> None:
    """Forget what an interrupted run could not read, and what it read of files that have changed: both are tried again."""
    again = [
        key
        for key, entry in journal.entries.items()
        if key[1] in job.changed or (entry.reason is not None and entry.reason not in LASTING)
    ]
    for key in again:
        del journal.entries[key]
    if again:
        logger.info(f"shard {job.shard:04d}: {len(again)} outcomes of the interrupted run are tried again")


def _add_reused(journal: IngestJournal, outcomes: Iterable[ReusedOutcome]) -> set[Key]:
    """Add to the journal the outcomes it lacks; returns the keys of all of them."""
    keys: set[Key] = set()
    for one in outcomes:
        keys.add(one.key)
        if one.key not in journal.entries:
            journal.add(one.key, one.reason, one.detail, one.clear_fraction, one.data)
    return keys


def journal_folder(target: Path) -> Path:
    """Folder of a shard's ingest journal: beside the shard, because it is not part of it."""
    return target.with_name(f"{target.name}.spool")


@dataclass(frozen=True)
class _ReaderPool:
    """Threads that read chips, and their clients."""

    threads: ThreadPoolExecutor
    size: int
    want: Want
    remote: RemoteFiles | None

    def read(self, group: list[Request]) -> list[tuple[Outcome, bytes]]:
        """The chips of one scene: outcomes without their pixels, and GeoTIFFs."""
        grids = [state.place.grid for state, _, _ in group]
        cpu = nullcontext() if self.remote is None else self.remote.cpu
        results: dict[int, tuple[Outcome, bytes]] = {}
        # GDAL's options belong to a thread
        with rasterio.Env(**GDAL_OPTIONS):
            for row, outcome in read_chips(SceneFiles.from_row(group[0][2]), grids, self.want, self.remote):
                data = b""
                if outcome.pixels is not None:
                    with cpu:
                        data = encode(outcome.pixels, self.want.bands, grids[row])
                results[row] = replace(outcome, pixels=None), data
        return [results[row] for row in range(len(grids))]


@contextmanager
def _reader_pool(job: ShardJob) -> Iterator[_ReaderPool]:
    """As many threads as there are cores to use, or twice the number of connections where files come over HTTP."""
    want, limits = job.want, job.concurrency
    references = _some_addresses(job.rows)
    with ExitStack() as stack:
        fetcher, remote, size = None, None, limits.workers
        if references:
            fetcher = stack.enter_context(Fetcher(limits.connections, want.sign, references, limits.patience, job.limits))
            remote = RemoteFiles(fetcher, want.sign, BoundedSemaphore(limits.workers), drivers=want.drivers)
            # while one scene is decoded, the connections serve another
            size = max(limits.workers, 2 * limits.connections)
        threads = stack.enter_context(ThreadPoolExecutor(size))
        try:
            yield _ReaderPool(threads, size, want, remote)
        finally:
            # after an error, do not wait for the other requests
            threads.shutdown(wait=False, cancel_futures=True)
            if fetcher is not None:
                fetcher.stop()


def _some_addresses(rows: list[Row]) -> list[str]:
    """A few files over HTTP, of scenes far apart in the list."""
    step = max(len(rows) // _LANDMARKS, 1)
    hrefs = (next(iter(unpack(row["hrefs"]).values())) for row in rows[::step] if row["hrefs"])
    return list(dict.fromkeys(href.partition(BAND_MARK)[0] for href in hrefs if is_http(href)))


def _outcomes(
    pool: _ReaderPool, requests: list[Request], journal: IngestJournal
) -> Iterator[tuple[PlaceState, SeasonSlot, Row, JournalEntry, bool]]:
    """First the requests already in the journal, then the others as they are read; True: read now.

    No more groups are submitted at once than the threads need, whatever the size of the shard.
    """
    waiting: list[Request] = []
    for state, slot, row in requests:
        entry = journal.entries.get((state.place.location_id, row["item_id"]))
        if entry is None:
            waiting.append((state, slot, row))
        else:
            yield state, slot, row, entry, False
    groups = iter(_groups(waiting))
    under_way: dict[Future, list[Request]] = {}
    while True:
        for group in islice(groups, pool.size + _AHEAD - len(under_way)):
            under_way[pool.threads.submit(pool.read, group)] = group
        if not under_way:
            return
        # keep what was read before a failure ends the work
        for future in sorted(wait(under_way, return_when=FIRST_COMPLETED).done, key=_failed):
            group = under_way.pop(future)
            for (state, slot, row), (outcome, data) in zip(group, future.result(), strict=True):
                key = state.place.location_id, row["item_id"]
                yield state, slot, row, journal.add(key, outcome.reason, outcome.detail, outcome.clear_fraction, data), True


def _failed(future: Future) -> bool:
    return future.exception() is not None


def _groups(requests: list[Request]) -> Iterator[list[Request]]:
    """Requests of one scene, neighbors together (they share blocks), in parts small enough for memory."""
    scenes: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        scenes[request[2]["item_id"]].append(request)
    for item_id in sorted(scenes):
        group = sorted(scenes[item_id], key=_neighborhood)
        yield from (group[start : start + CHIPS_AT_ONCE] for start in range(0, len(group), CHIPS_AT_ONCE))


def _neighborhood(request: Request) -> tuple:
    grid = request[0].place.grid
    return grid.epsg, grid.top // _NEAR_M, grid.left, grid.top


def _write(target: Path, journal: IngestJournal, kept: list[PlaceState], job: ShardJob, reused: set[Key]) -> Facts:
    chips = [(state, key, slot) for state in kept for key, slot in sorted(state.slots.items()) if slot.chosen is not None]
    footprints = dict(
        zip((state.place.location_id for state in kept), chip_footprints([state.place.grid for state in kept]), strict=True)
    )

    def members() -> Iterator[tuple[str, bytes]]:
        for state, (period, season), slot in chips:
            yield member_name(state.place.location_id, period, season), journal.read(slot.entry)

    if job.root is None:
        ranges = write_tar(target / TAR, members())
    else:
        # straight from the journal: the tar itself takes no space on this machine
        ranges = store_tar(target, job.root, lambda stream: pack_tar(stream, members()))
    rows = []
    for (state, (period, season), slot), (offset, length, sha256) in zip(chips, ranges, strict=True):
        place, chosen = state.place, slot.chosen or {}
        rows.append(
            {
                **{name: chosen[name] for name in ("datetime", "item_id", "cloud_cover", "status")},
                **{"location_id": place.location_id, "period": period, "season": season, "epsg": place.grid.epsg},
                **{"clear_fraction": slot.clear_fraction, "offset": offset, "length": length, "sha256": sha256},
                **{"lon": place.lon, "lat": place.lat, "geometry": footprints[place.location_id]},
            }
        )
    write_index(target / INDEX, rows, job.want.bands)
    mean = sum(row["clear_fraction"] for row in rows) / len(rows) if rows else 0.0
    widened = sum(row["status"] == "widened" for row in rows)
    taken_over = sum((row["location_id"], row["item_id"]) in reused for row in rows)
    facts = {"chips": len(rows), "taken_over": taken_over, "widened": widened}
    return {**facts, "clear_fraction": round(mean, 4), "bytes": tar_size(target)}


def _refusal(row: Row, shard: int, reason: str, detail: str, clear_fraction: float | None = None) -> Row:
    kept = {name: row[name] for name in ("location_id", "period", "season", "item_id")}
    return {**kept, "shard": shard, "reason": reason, "detail": detail, "clear_fraction": clear_fraction}


def _place_refusal(state: PlaceState, job: ShardJob, dates: Counter[int]) -> Row:
    detail = f"clear dates: {dates[0]} early, {dates[1]} late; at least {job.min_seasons} are needed in each period"
    place = {"location_id": state.place.location_id, "period": None, "season": None, "item_id": None}
    return {**place, "shard": job.shard, "reason": "too_few_seasons", "detail": detail, "clear_fraction": None}
