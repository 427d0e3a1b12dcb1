"""Products: atomic, resumable, reused only when nothing has changed, and named by DVC's own hash."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, content_hash, file_md5, fingerprint, produce, recorded


class Maker:
    """Writes a file or a folder, and counts its calls."""

    def __init__(self, text: str = "one", folder: bool = False) -> None:
        self.text, self.folder, self.calls = text, folder, 0

    def __call__(self, path: Path) -> dict:
        self.calls += 1
        if self.folder:
            path.mkdir(exist_ok=True)
            (path / "part.txt").write_text(self.text)
        else:
            path.write_text(self.text)
        return {"length": len(self.text)}


def build(home: Path, make, name="thing", recipe="1", **inputs) -> Product:
    return produce(name, home / "data" / name, records=home / "records", recipe=recipe, inputs=inputs, make=make)


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data").rglob(".*"))


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_an_unchanged_product_is_reused(tmp_path, folder):
    make = Maker(folder=folder)
    first, second = build(tmp_path, make, a=1), build(tmp_path, make, a=1)
    assert make.calls == 1
    assert (first.reused, second.reused) == (False, True)
    assert (first.content_hash, first.facts, first.path) == (second.content_hash, second.facts, second.path)
    assert recorded(tmp_path / "records", "thing") == second


@pytest.mark.parametrize("change", [{"recipe": "2", "a": 1}, {"a": 2}, {"a": 1, "b": 1}], ids=["recipe", "value", "input"])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_changed_recipe_or_input_makes_it_again(tmp_path, change, folder):
    build(tmp_path, Maker("old", folder), a=1)
    product = build(tmp_path, Maker("new", folder), **change)
    assert not product.reused
    assert (product.path / "part.txt" if folder else product.path).read_text() == "new"
    assert leftovers(tmp_path) == []


def test_the_order_of_inputs_does_not_matter():
    assert fingerprint("1", {"a": 1, "b": [2]}) == fingerprint("1", {"b": [2], "a": 1}) != fingerprint("1", {"a": 1, "b": [3]})


def test_an_input_whose_text_is_not_stable_is_refused():
    with pytest.raises(TypeError, match="object has no place in a fingerprint"):
        fingerprint("1", {"a": object()})


def test_facts_come_back_from_the_record_as_they_were_returned(tmp_path):
    facts = {"count": np.int64(3), "share": np.float32(0.5), "day": date(2026, 11, 1), "pair": (1, 2), "path": Path("a/b")}

    def make(path: Path) -> dict:
        path.write_text("x")
        return facts

    first, second = build(tmp_path, make), build(tmp_path, make)
    assert first.facts == second.facts == {"count": 3, "share": 0.5, "day": "2026-11-01", "pair": [1, 2], "path": "a/b"}


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_make_that_fails_leaves_the_old_product_and_its_record(tmp_path, folder):
    old = build(tmp_path, Maker("old", folder), a=1)

    def fails(path: Path) -> dict:
        Maker("half", folder)(path)
        raise RuntimeError("the network went away")

    with pytest.raises(RuntimeError, match="network"):
        build(tmp_path, fails, a=2)
    assert content_hash(old.path) == old.content_hash
    assert recorded(tmp_path / "records", "thing").fingerprint == old.fingerprint
    assert build(tmp_path, fails, a=1).reused


def test_a_make_that_writes_nothing_is_an_error_and_the_old_product_stays(tmp_path):
    old = build(tmp_path, Maker("old", folder=True), a=1)
    with pytest.raises(FileNotFoundError, match="make returned without writing"):
        build(tmp_path, lambda path: {}, a=2)
    assert content_hash(old.path) == old.content_hash


def test_a_file_may_become_a_folder_and_a_folder_a_file(tmp_path):
    build(tmp_path, Maker("file"), a=1)
    assert build(tmp_path, Maker("folder", folder=True), a=2).path.is_dir()
    assert build(tmp_path, Maker("file"), a=3).path.is_file()
    assert leftovers(tmp_path) == []


def test_a_swap_cut_in_the_middle_gives_the_old_folder_back(tmp_path):
    make = Maker("old", folder=True)
    old = build(tmp_path, make, a=1)
    old.path.rename(old.path.with_name(".thing.old"))
    assert build(tmp_path, make, a=1).reused
    assert make.calls == 1


def test_a_killed_run_is_resumed_from_what_it_left(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from caco_assets.core.products import produce
        home = Path(sys.argv[1])

        def make(path):
            path.mkdir(exist_ok=True)
            for part in range(3):
                target = path / f"part-{part}.txt"
                if target.exists():
                    continue
                if part == 2 and sys.argv[2] == "hang":
                    (home / "ready").touch()
                    time.sleep(60)
                target.write_text(sys.argv[2])
            return {}

        produce("thing", home / "data/thing", records=home / "records", recipe="1", inputs={}, make=make)
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.Popen([*command, "hang"])
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (tmp_path / "data" / "thing").exists()
    subprocess.run([*command, "go on"], check=True)
    parts = [path.read_text() for path in sorted((tmp_path / "data" / "thing").iterdir())]
    assert parts == ["hang", "hang", "go on"]
    assert leftovers(tmp_path) == []


def test_what_a_run_killed_after_its_record_still_held_is_cleared_when_the_product_is_reused(tmp_path):
    make = Maker(folder=True)
    product = build(tmp_path, make, a=1)
    spool = product.path.with_name(f".thing.partial-{product.fingerprint[:12]}.spool")
    spool.mkdir()
    (spool / "chips.spool").write_bytes(b"chips")
    product.path.with_name(".thing.old").mkdir()
    elsewhere = product.path.with_name(".thing.partial-0123456789ab")
    elsewhere.write_text("of a run with other settings, which may be going on")
    assert build(tmp_path, make, a=1).reused
    assert leftovers(tmp_path) == [elsewhere.name]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_product_that_was_tampered_with_is_made_again(tmp_path, folder):
    make = Maker("right", folder)
    product = build(tmp_path, make)
    (product.path / "part.txt" if folder else product.path).write_text("wrong")
    assert not build(tmp_path, make).reused
    assert content_hash(product.path) == product.content_hash


def test_a_deleted_product_is_made_again(tmp_path):
    make = Maker()
    build(tmp_path, make).path.unlink()
    assert not build(tmp_path, make).reused


def test_new_times_on_the_same_bytes_are_no_change(tmp_path):
    make = Maker(folder=True)
    product = build(tmp_path, make)
    os.utime(product.path / "part.txt", (1, 1))
    assert build(tmp_path, make).reused
    assert make.calls == 1


def test_a_workspace_that_has_moved_still_knows_its_products(tmp_path):
    make = Maker(folder=True)
    build(tmp_path / "here", make, name="archive/shard=0003")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    moved = build(tmp_path / "there", make, name="archive/shard=0003")
    assert moved.reused
    assert make.calls == 1
    assert moved.path == tmp_path / "there" / "data" / "archive" / "shard=0003"
    assert str(tmp_path) not in (tmp_path / "there" / "records" / "archive" / "shard=0003.json").read_text()


def test_a_nested_name_keeps_its_record_beside_its_siblings(tmp_path):
    for shard in range(2):
        build(tmp_path, Maker(str(shard), folder=True), name=f"archive/shard=000{shard}")
    assert recorded(tmp_path / "records", "archive/shard=0001").name == "archive/shard=0001"
    assert recorded(tmp_path / "records", "archive/shard=0001").path.name == "shard=0001"


def test_a_product_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="pack: not made yet"):
        recorded(tmp_path / "records", "pack")


def test_a_damaged_record_says_what_to_do(tmp_path):
    write_atomic(tmp_path / "records" / "thing.json", "{half")
    with pytest.raises(UserError, match=r"thing\.json: not readable as JSON .* delete it"):
        build(tmp_path, Maker())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line_and_what_was_written_is_kept(tmp_path, code):
    def full(path: Path) -> dict:
        path.mkdir()
        (path / "part.txt").write_text("one")
        raise OSError(code, os.strerror(code))

    with pytest.raises(UserError, match=r"thing: the disk (is full|quota is used up); free some space") as caught:
        build(tmp_path, full)
    assert "\n" not in str(caught.value)
    kept: list[str] = []

    def resumed(path: Path) -> dict:
        kept.append((path / "part.txt").read_text())
        return {}

    build(tmp_path, resumed)
    assert kept == ["one"]


def test_another_error_of_the_system_is_not_taken_for_a_full_disk(tmp_path):
    def denied(path: Path) -> dict:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    with pytest.raises(ConnectionRefusedError):
        build(tmp_path, denied)


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    write_atomic(target, "old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.integration
def test_the_content_hash_is_dvcs_own(tmp_path):
    (tmp_path / "file.bin").write_bytes(bytes(range(256)) * 9000)
    for name, data in {
        "b.txt": "line\r\nline\n",
        "a/z.txt": "",
        "a.txt": "é",
        "a/é/deep.bin": "x",
        "A/1": "1",
        "a-b/2": "2",
    }.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data.encode())
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path),
    }
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=tmp_path, check=True, env=quiet)
    subprocess.run([*dvc, "config", "core.check_update", "false"], cwd=tmp_path, check=True, env=quiet)
    subprocess.run([*dvc, "add", "-q", "file.bin", "folder"], cwd=tmp_path, check=True, env=quiet)
    for name in ("file.bin", "folder"):
        known = yaml.safe_load((tmp_path / f"{name}.dvc").read_text())["outs"][0]["md5"]
        assert content_hash(tmp_path / name) == known
    assert file_md5(tmp_path / "file.bin") == content_hash(tmp_path / "file.bin")


def test_a_record_is_plain_json_that_people_can_read(tmp_path):
    build(tmp_path, Maker())
    record = json.loads((tmp_path / "records" / "thing.json").read_text())
    assert set(record) == {"name", "path", "fingerprint", "content_hash", "facts", "signature"}
    assert record["path"] == "../data/thing"
