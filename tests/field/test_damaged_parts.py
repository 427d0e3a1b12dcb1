"""Profiles, policies, records, `dvc.yaml`, `dvc.lock` and tables with any bytes in them: read, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.core.products import read_record, recorded
from caco_assets.imagery.archive.listing import list_chips, list_shards
from caco_assets.imagery.archive.reader import ArchiveReader
from caco_assets.imagery.archive.shard import INDEX, iter_chips
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.training.run_config import read_config
from caco_assets.registry.promotion.policy import read_policy
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.repo import history, stages_of
from caco_assets.resources.vintages import finished
from caco_assets.settings import Settings, load_settings

SHARED = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
RECORD = {"name": "thing", "path": "../thing", "fingerprint": "f", "content_hash": "c", "signature": "s", "facts": {"n": 1}}
LOCK = {"schema": "2.0", "stages": {"archive@tiny": {"cmd": "x", "outs": [{"path": "a", "md5": "b"}]}}}
PROFILE = {"seed": 1, "imagery": {"seasons": 3}, "pretraining": {"epochs": 2}}
HISTORY = {"when": "2026-11-01", "profile": "tiny", "stage": "pack", "path": "a", "md5": "b"}

DEEP = b"[" * 100_000
ALIAS = b"a: &a [*a]\nb: *a\n"
BILLION = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
)
UTF_16, MARKED, LATIN = "{}".encode("utf-16"), b"\xef\xbb\xbf{}", "é: 1".encode("latin-1")
ODD = (b"", b"\x00", UTF_16, MARKED, LATIN, DEEP, ALIAS, BILLION, b"null", b"[]", b"3", b'"x"')


def like(content: object) -> st.SearchStrategy[bytes]:
    """A sound file with a part removed, replaced or repeated, other values in its place, or any bytes."""
    text = json.dumps(content).encode()
    keys = st.sampled_from([*sorted(_keys(content)), "x"])
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    for _ in range(3):
        values = values | st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=5)

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        start, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        return text[:start] + draw(st.binary(max_size=6)) + text[end:]

    return changed() | values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60) | st.sampled_from(ODD)


def _keys(content: object) -> set[str]:
    if isinstance(content, dict):
        return set(content) | {key for value in content.values() for key in _keys(value)}
    return {key for value in content for key in _keys(value)} if isinstance(content, list) else set()


def refused_in_one_line(read: Callable[[], object], file: Path | None = None) -> None:
    """Reading works, or is refused by name."""
    try:
        read()
    except UserError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message
    assert len(message) < 1500
    assert file is None or file.stem in message


@SHARED
@given(like(PROFILE))
@example(ALIAS)
@example(BILLION)
@example(DEEP)
def test_a_profile(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(data)
    refused_in_one_line(lambda: load_settings(str(file), home=tmp_path), file)


def test_a_profile_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(UserError, match=r"mine\.yaml: a folder, where a file belongs"):
        load_settings(str(tmp_path / "mine.yaml"), home=tmp_path)


def test_a_variable_that_is_nested_too_deeply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACO_SAMPLING", "[" * 100_000)
    with pytest.raises(UserError, match="CACO_SAMPLING=") as caught:
        load_settings("tiny", home=tmp_path)
    assert len(str(caught.value)) < 500


@SHARED
@given(like(yaml.safe_load((Path(__file__).parents[2] / "mlflow" / "promotion.yaml").read_text())))
def test_a_policy(settings: Settings, data: bytes) -> None:
    file = settings.home / settings.registry.policy
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    refused_in_one_line(lambda: read_policy(settings), file)


@SHARED
@given(like(RECORD))
@example(json.dumps(RECORD | {"files": []}).encode())
def test_a_record(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "thing.json"
    file.write_bytes(data)
    refused_in_one_line(lambda: recorded(tmp_path, "thing"), file)


def test_a_record_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "thing.json").mkdir()
    with pytest.raises(UserError, match=r"thing\.json: a folder, where a file belongs; delete it"):
        read_record(tmp_path / "thing.json")


@SHARED
@given(like(LOCK))
def test_a_lock_of_dvc(settings: Settings, data: bytes) -> None:
    file = settings.home / "dvc.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    refused_in_one_line(lambda: stages_of(settings), file)


@SHARED
@given(st.binary(max_size=60) | st.sampled_from(ODD))
def test_a_pipeline(settings: Settings, data: bytes) -> None:
    ensure_home(settings)
    (settings.home / "dvc.yaml").write_bytes(data)
    refused_in_one_line(lambda: ensure_home(settings), settings.home / "dvc.yaml")
    (settings.home / "dvc.yaml").unlink()


@SHARED
@given(like(HISTORY))
def test_a_line_of_the_history(settings: Settings, data: bytes) -> None:
    file = settings.paths.workspace / "dvc" / "history.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(json.dumps(HISTORY).encode() + b"\n" + data)
    refused_in_one_line(lambda: history(settings), file)


@SHARED
@given(like({"vintage": "2026-11", "run_id": "r", "version": "1", "promoted": True, "at": "now"}))
def test_a_finished_vintage(settings: Settings, data: bytes) -> None:
    file = settings.paths.root / "vintages" / "2026-11.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    refused_in_one_line(lambda: finished(settings), file)


@SHARED
@given(like({"pack": "p", "target": "t", "seed": 0, "pretraining": {"epochs": 1}}))
def test_a_config_of_training(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(data)
    refused_in_one_line(lambda: read_config(file), file)


@SHARED
@given(st.data())
def test_a_pack(tmp_path_factory: pytest.TempPathFactory, make_pack: Callable[..., Path], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("pack") / "pack"
    make_pack(folder, places=2, dates=1, side=4)
    name = data.draw(st.sampled_from(["pack.json", "pack.parquet", "images-0000.npy"]))
    content = (folder / name).read_bytes()
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
    (folder / name).write_bytes(content[:start] + data.draw(st.binary(max_size=6)) + content[end:])
    refused_in_one_line(lambda: [Pack.open(folder).image(place, 0, 0) for place in range(2)])


@SHARED
@given(st.data())
def test_an_index_of_chips(small_archive: Path, data: st.DataObject) -> None:
    file = small_archive / "shard=0000" / INDEX
    keep = file.with_name("kept")
    if not keep.exists():
        shutil.copyfile(file, keep)
    content = keep.read_bytes()
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
    file.write_bytes(content[:start] + data.draw(st.binary(max_size=6)) + content[end:])
    refused_in_one_line(lambda: list(iter_chips(small_archive)))
    refused_in_one_line(lambda: list_shards(small_archive))
    refused_in_one_line(lambda: list_chips(small_archive, 0))
    refused_in_one_line(lambda: ArchiveReader(small_archive).chips(0))
    assert all("\n" not in str(problem) for problem in verify_archive(small_archive, workers=1))
