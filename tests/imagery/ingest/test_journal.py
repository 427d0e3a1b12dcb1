"""The ingest journal of a shard: after an interruption at any point, complete entries are read back."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.ingest.journal import CHIPS, JOURNAL, IngestJournal


def fill(folder, count: int, start: int = 0) -> None:
    with IngestJournal(folder) as spool:
        for number in range(start, start + count):
            dice = random.Random(number)
            if number % 3 == 2:
                spool.add((f"L{number}", "item"), "cloudy", f"“{number}” %", dice.random(), b"")
            else:
                spool.add((f"L{number}", "item"), None, "", dice.random(), dice.randbytes(100 + number))


def check(folder, most: int) -> int:
    """Every entry that is there is right; returns how many there are."""
    with IngestJournal(folder) as spool:
        for number, (key, entry) in enumerate(spool.entries.items()):
            dice = random.Random(number)
            assert key == (f"L{number}", "item")
            assert entry.clear_fraction == dice.random()
            if number % 3 == 2:
                assert (entry.reason, entry.detail) == ("cloudy", f"“{number}” %")
            else:
                assert spool.read(entry) == dice.randbytes(100 + number)
        assert len(spool.entries) <= most
        return len(spool.entries)


def test_what_was_added_is_read_back(tmp_path):
    fill(tmp_path, 10)
    assert check(tmp_path, 10) == 10
    fill(tmp_path, 5, start=10)
    assert check(tmp_path, 15) == 15


@given(st.sampled_from([CHIPS, JOURNAL]), st.floats(0, 1), st.booleans())
def test_a_torn_tail_is_cut_and_the_rest_is_kept(tmp_path_factory, name, share, garbled):
    folder = tmp_path_factory.mktemp("spool")
    fill(folder, 12)
    size = (folder / name).stat().st_size
    with (folder / name).open("r+b") as stream:
        stream.truncate(int(size * share))
        if garbled:  # after a loss of power a file may have its length and not its bytes
            stream.seek(0, os.SEEK_END)
            stream.write(b"\0" * (size - int(size * share)))
    whole = check(folder, 12)
    assert whole == 12 or share < 1
    fill(folder, 12 - whole, start=whole)
    assert check(folder, 12) == 12


def test_a_changed_byte_ends_what_is_believed(tmp_path):
    fill(tmp_path, 12)
    data = bytearray((tmp_path / CHIPS).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / CHIPS).write_bytes(bytes(data))
    assert 0 < check(tmp_path, 12) < 12


def test_the_disk_is_asked_to_keep_it_without_holding_up_the_reading(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("caco_assets.imagery.ingest.journal.SYNC_S", 0.0)
    monkeypatch.setattr("caco_assets.imagery.ingest.journal.os.fsync", synced.append)
    fill(tmp_path, 4)
    assert len(synced) == 8


@pytest.mark.parametrize("reason", [None, "nodata"])
def test_a_share_that_is_not_known_stays_unknown(tmp_path, reason):
    with IngestJournal(tmp_path) as spool:
        spool.add(("L1", "a"), reason, "x", None, b"")
    with IngestJournal(tmp_path) as spool:
        assert spool.entries["L1", "a"].clear_fraction is None
