"""Files are seen old or new, many writers disturb nobody, and what a killed writer left does not stay."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caco_assets.core.atomic import make_missing, replacing, write_atomic

DIES = """
import os, sys
from pathlib import Path
from caco_assets.core.atomic import replacing
with replacing(Path(sys.argv[1])) as scratch:
    scratch.write_text("half of what was to be wri")
    os.kill(os.getpid(), 9)
"""
WRITES = """
import sys
from pathlib import Path
from caco_assets.core.atomic import write_atomic
for number in range(200):
    write_atomic(Path(sys.argv[1]), sys.argv[2] * (number + 1))
"""


def test_the_file_is_there_with_its_folder_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.json", "{}")
    write_atomic(tmp_path / "a" / "b.json", b"[]")
    assert [(file.name, file.read_text()) for file in (tmp_path / "a").iterdir()] == [("b.json", "[]")]


def test_a_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    write_atomic(tmp_path / "b.json", "{}")

    def fails() -> None:
        with replacing(tmp_path / "b.json") as scratch:
            scratch.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("b.json", "{}")]


def test_what_a_killed_writer_left_is_gone_after_the_next(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_atomic(file, "{}")
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", DIES, str(file)], check=False).returncode == -9
        assert (file.read_text(), len(list(tmp_path.iterdir()))) == ("{}", 2)
    write_atomic(file, "[]")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("b.json", "[]")]


def test_processes_and_threads_write_one_file_and_a_reader_sees_whole_ones(tmp_path: Path) -> None:
    file = tmp_path / "b.txt"
    write_atomic(file, "0")
    others = [subprocess.Popen([sys.executable, "-c", WRITES, str(file), mark]) for mark in "xy"]
    done = threading.Event()

    def read() -> int:
        seen: set[str] = set()
        while not done.is_set():
            seen.add(text := file.read_text())
            assert len(set(text)) == 1, text
        return len(seen)

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(lambda mark=mark: [write_atomic(file, mark * (n + 1)) for n in range(200)]) for mark in "ab"]
        try:
            assert [writer.result() and 0 for writer in writers] + [other.wait(60) for other in others] == [0] * 4
        finally:
            done.set()
    assert reader.result() > 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.txt"]


def test_concurrent_callers_wait_and_reuse_the_result(tmp_path: Path) -> None:
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    made: list[int] = []
    begun = threading.Event()

    def make(first: Path, second: Path) -> None:
        made.append(threading.get_ident())
        begun.set()
        first.write_text("a")
        # long enough for the other to have come
        time.sleep(0.3)
        second.write_text("b")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(make_missing, files, make)
        begun.wait(60)
        other = pool.submit(make_missing, files, make)
        assert (one.result(), other.result()) == (None, None)
    assert len(made) == 1
    make_missing(files, make)
    assert len(made) == 1
    assert sorted((file.name, file.read_text()) for file in tmp_path.iterdir()) == [("a.npy", "a"), ("b.npy", "b")]
