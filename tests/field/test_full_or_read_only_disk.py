"""A disk that is full, read-only or closed to this user, met by any library: one line, and an end."""

import errno
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from caco_assets.cli import _Group, main
from caco_assets.core.errors import StorageError, UserError, chain, storage_error
from caco_assets.orchestration.in_process import materialize
from caco_assets.resources.mlflow.client import RequestRefusedError, mlflow_errors
from caco_assets.settings import Settings, load_settings


def ring() -> RuntimeError:
    """Two errors that name each other as their cause, as when a library raises a stored exception again."""
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    return first


def sqlite_full(folder: Path) -> sqlite3.OperationalError:
    """The error of a database that may not grow."""
    with sqlite3.connect(folder / "full.db") as database:
        database.execute("create table t (x)")
        database.execute("pragma max_page_count = 3")
        try:
            database.execute("insert into t values (zeroblob(100000))")
        except sqlite3.OperationalError as error:
            return error
    raise AssertionError


def test_errors_that_name_each_other_are_each_visited_once() -> None:
    error = ring()
    assert [str(each) for each in chain(error)] == ["first", "second"]
    assert storage_error(error) is None


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans()), max_size=30))
def test_any_graph_of_causes_ends(links: list[tuple[int, int, bool]]) -> None:
    errors = [RuntimeError(str(number)) for number in range(8)]
    for here, there, cause in links:
        setattr(errors[here], "__cause__" if cause else "__context__", errors[there])
    seen = [int(str(each)) for each in chain(errors[0])]
    assert seen[0] == 0
    assert len(seen) == len(set(seen))


def test_the_error_behind_the_explicit_cause_is_found_too() -> None:
    error = RuntimeError("outer")
    error.__cause__, error.__context__ = ValueError("cause"), OSError(errno.ENOSPC, "No space left on device", "/w/x")
    assert str(storage_error(error)).startswith("/w/x: the disk is full; free some space")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_storage_fault_in_any_command_is_one_line(code: int, words: str) -> None:
    group = _Group()

    @group.command()
    def write() -> None:
        try:
            raise OSError(code, os.strerror(code), "/home/file")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    result = CliRunner().invoke(group, ["write"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"caco: /home/file: {words}")
    assert result.stderr.count("\n") == 1


def test_another_fault_of_a_command_keeps_its_traceback() -> None:
    group = _Group()

    @group.command()
    def wrong() -> None:
        raise ring()

    assert isinstance(CliRunner().invoke(group, ["wrong"]).exception, RuntimeError)


def test_a_refused_socket_is_no_matter_of_the_disk() -> None:
    assert storage_error(PermissionError(errno.EACCES, "Permission denied")) is None


def test_a_full_database_of_dagster_or_mlflow_is_one_line(tmp_path: Path) -> None:
    cause = sqlite_full(tmp_path)
    wrapped = OperationalError("INSERT INTO event_logs …", {}, cause)
    assert str(storage_error(wrapped)).startswith("the disk is full")
    with pytest.raises(StorageError, match="the disk is full"), mlflow_errors("sqlite:////w/mlflow.db"):
        raise wrapped
    # a server's disk is not this machine's
    with pytest.raises(RequestRefusedError, match="database or disk is full"), mlflow_errors("http://server:5000"):
        raise wrapped


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_cut_write_of_an_array_is_one_line() -> None:
    with pytest.raises(OSError, match="requested") as caught, Path("/dev/full").open("wb", buffering=0) as full:
        np.zeros(100_000, np.uint8).tofile(full)
    assert str(storage_error(caught.value)) == str(storage_error(OSError(errno.ENOSPC, "full")))


def test_a_ring_of_errors_in_a_step_ends_the_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")

    @dg.asset
    def broken() -> None:
        raise ring()

    definitions = dg.Definitions(assets=[broken], jobs=[dg.define_asset_job("chain")], executor=dg.in_process_executor)
    with pytest.raises(RuntimeError, match="first"):
        materialize(definitions.resolve_job_def("chain"), settings)


def test_a_full_disk_in_a_step_is_one_line(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")

    @dg.asset
    def full() -> None:
        raise OperationalError("INSERT …", {}, sqlite_full(tmp_path))

    definitions = dg.Definitions(assets=[full], jobs=[dg.define_asset_job("chain")], executor=dg.in_process_executor)
    with pytest.raises(UserError, match="the disk is full; free some space"):
        materialize(definitions.resolve_job_def("chain"), settings)


def test_reading_commands_write_nothing(small_archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_with(small_archive, monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in sorted(home.rglob("*"))}
    for arguments in READING:
        result = CliRunner().invoke(main, [*arguments, "--profile", "tiny"])
        assert (arguments, result.exit_code) == (arguments, 0), result.output
    assert {path: path.stat().st_mtime_ns for path in sorted(home.rglob("*"))} == before


@pytest.mark.integration
def test_reading_commands_work_on_a_read_only_mount_and_writing_ones_end_in_one_line(
    small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_with(small_archive, monkeypatch)
    mount = f"mount --bind {home} {home} && mount -o remount,ro,bind {home}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a folder in a namespace of its own")
    commands = "; ".join(f"main({[*arguments, '--profile', 'tiny']}, standalone_mode=False)" for arguments in (*READING, ("pack",)))
    program = f"from caco_assets.cli import main; {commands}"
    script = f"{mount} && exec {shlex.join([sys.executable, '-c', program])}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "every chip is what its index says" in done.stdout
    *_, last = done.stderr.splitlines()
    assert last.startswith(
        f"caco: {home / 'workspace'}: the file system is read-only; mount it writable, or choose another home with CACO_HOME"
    )
    assert "Traceback" not in done.stderr


def test_a_home_that_may_not_be_written_to_stops_a_writing_command_at_once(
    small_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_with(small_archive, monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = CliRunner().invoke(main, ["ingest", "--profile", "tiny"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"caco: {home / 'workspace'}: permission denied; give this user access")
    assert result.stderr.count("\n") == 1


READING = (("archive", "ls"), ("archive", "ls", "--shard", "0"), ("archive", "verify"), ("settings",), ("vintages",))


def home_with(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive and nothing else: no `dvc.yaml`, no `.dvc`."""
    home = archive.parent / "home"
    folder = load_settings("tiny", home=home).paths.archive
    folder.parent.mkdir(parents=True)
    archive.rename(folder)
    monkeypatch.setenv("CACO_HOME", str(home))
    return home


@pytest.mark.systems
@pytest.mark.parametrize(
    "megabytes", [30, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 12, 60, 80, 100, 125, 150))]
)
def test_a_chain_on_a_disk_that_is_too_small_ends_in_one_line_and_continues_on_a_larger_one(tmp_path: Path, megabytes: int) -> None:
    """Its fast twins are above; here every writer of the chain meets the end of the disk, at whichever file it comes."""
    home = tmp_path / "home"
    home.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m none {home}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system in a namespace of its own")
    demo = shlex.join([sys.executable, "-m", "caco_assets.cli", "demo", "--profile", "tiny"])
    larger = f"mount -o remount,size=1g {home}"
    script = f"{mount} && cd {home}; {demo} 2> {tmp_path}/first; echo $?; {larger} && {demo} 2> {tmp_path}/second; echo $?"
    environment = {**os.environ, "CACO_HOME": str(home)}
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=550)
    statuses = [line for line in done.stdout.splitlines() if line.isdigit()]
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert statuses == ["2", "0"], first[-2000:] + second[-2000:]
    assert "Traceback" not in first
    last = first.splitlines()[-1]
    assert last.startswith("caco: ")
    assert "disk is full" in last
