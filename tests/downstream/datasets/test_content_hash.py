"""Hashes of data sets: every byte counts, and no byte is read twice as long as no file has changed."""

import os

import pytest

from caco_assets.core.products import content_hash
from caco_assets.downstream.datasets import content_hash as module
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.readers.eurosat import read


@pytest.fixture
def data(tmp_path):
    """A folder with a file at two depths."""
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.bin").write_bytes(b"one")
    (folder / "deep" / "two.bin").write_bytes(b"two")
    return folder


@pytest.fixture
def reads(monkeypatch):
    """What has been read in full since the test began."""
    found = []
    monkeypatch.setattr(module, "content_hash", lambda path, seen=None: found.append(path) or content_hash(path))
    return found


@pytest.fixture
def hashes(tmp_path):
    return Hashes(tmp_path / "memory")


def test_the_hash_is_dvcs_and_is_remembered_by_any_later_reader(data, hashes, reads):
    assert hashes.of(data) == hashes.of(data) == content_hash(data)
    assert Hashes(hashes.folder).of(data) == content_hash(data)
    assert len(reads) == 1


def test_nothing_is_remembered_without_a_folder(data, reads):
    assert FRESH.of(data) == FRESH.of(data)
    assert len(reads) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "one.bin").write_bytes(b"One"),
        lambda folder: (folder / "deep" / "three.bin").write_bytes(b""),
        lambda folder: (folder / "deep" / "two.bin").unlink(),
        lambda folder: (folder / "one.bin").rename(folder / "uno.bin"),
    ],
    ids=["a byte", "a new file", "a file less", "another name"],
)
def test_any_change_is_seen(data, hashes, change):
    before = hashes.of(data)
    change(data)
    assert hashes.of(data) == content_hash(data) != before


def test_a_byte_changed_behind_an_old_time_is_seen_too(data, hashes):
    before, times = hashes.of(data), (data / "one.bin").stat()
    (data / "one.bin").write_bytes(b"One")
    os.utime(data / "one.bin", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashes.of(data) != before


def test_touched_files_are_read_again_and_keep_their_hash(data, hashes, reads):
    before = hashes.of(data)
    os.utime(data / "one.bin")
    assert hashes.of(data) == before
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(data, hashes, monkeypatch):
    def disturbed(path, seen=None):
        found = content_hash(path)
        (data / "one.bin").write_bytes(b"One")
        return found

    monkeypatch.setattr(module, "content_hash", disturbed)
    stale = hashes.of(data)
    monkeypatch.undo()
    assert hashes.of(data) != stale


def test_a_data_set_is_the_same_version_with_and_without_memory(eurosat, hashes):
    assert read(eurosat, hashes).version == read(eurosat, hashes).version == read(eurosat).version
