"""File locks exclude processes and threads, and are released however their holder ends."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import caco_assets
from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import file_lock, is_locked, try_lock

HOLDING = """
import sys, time
from pathlib import Path
from caco_assets.core.file_lock import file_lock
with file_lock(Path(sys.argv[1]), "first"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_releases_its_lock_and_the_waiter_says_so_once(logged, tmp_path: Path) -> None:
    said, lock = logged(), tmp_path / "deep" / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(lock)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        entered = threading.Event()

        def second() -> None:
            with file_lock(lock, "second"):
                entered.set()

        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.3)
        first.send_signal(signal.SIGKILL)
        assert entered.wait(30)
        waiting.join()
    assert said == ["second: another process holds the lock; waiting"]
    assert lock.exists()


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with file_lock(tmp_path / "a.lock", "work"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize(("wait_s", "lines"), [(0, 0), (0.05, 1)])
def test_a_lock_that_is_not_released_in_time_is_an_error(logged, tmp_path: Path, wait_s: float, lines: int) -> None:
    said, lock = logged(), tmp_path / "a.lock"
    with (
        file_lock(lock, "first"),
        pytest.raises(UserError, match=r"^second: another process holds the lock; wait for it or stop it$"),
        file_lock(lock, "second", wait_s=wait_s),
    ):
        pass
    assert len(said) == lines
    with file_lock(lock, "second", wait_s=wait_s):
        pass


def test_whether_a_file_is_locked_can_be_told_without_creating_it(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    assert is_locked(lock) is None
    assert not lock.exists()
    with file_lock(lock, "a"):
        assert is_locked(lock) is True
    assert is_locked(lock) is False
    with lock.open("w") as held:
        assert try_lock(held, shared=True)
        assert is_locked(lock) is True


def test_shared_locks_exclude_an_exclusive_one_alone(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with lock.open("w") as first, lock.open("w") as second:
        assert try_lock(first)
        assert not try_lock(second, shared=True)
        assert try_lock(first, shared=True)
        assert try_lock(second, shared=True)
        assert not try_lock(first)
        assert try_lock(second, shared=True)


def test_no_other_module_locks_files() -> None:
    root = Path(caco_assets.__file__).parent
    locking = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if re.search(r"\bfcntl\b", path.read_text())}
    assert locking == {"core/file_lock.py"}
