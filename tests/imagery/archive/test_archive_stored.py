"""An archive in an object store: written as a stream, read by ranges, the same bytes as in a folder; over a real S3 API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caco_assets.core import object_store
from caco_assets.core.errors import UserError
from caco_assets.imagery.archive import tar_store
from caco_assets.imagery.archive.listing import list_shards
from caco_assets.imagery.archive.reader import ArchiveReader
from caco_assets.imagery.archive.shard import iter_chips, pack_tar, read_chip, read_index, shard_folders
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.settings import Settings, load_settings

pytestmark = pytest.mark.integration
DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")


@pytest.fixture
def client(s3_api: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a real S3 API on loopback with the bucket `sets`, to which the environment leads."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_api)
    client = boto3.client("s3", endpoint_url=s3_api)
    client.create_bucket(Bucket="sets")
    return client


@pytest.fixture
def both(tiny_earth, over, client) -> tuple[Settings, Settings]:
    """Settings whose archive is in the store, and their twin's in the workspace; both planned."""
    for number, date in enumerate(DATES):
        tiny_earth.scene(date, reflectance=0.05 + 0.01 * number)
    catalog = tiny_earth.write()
    far, near = over(catalog, home="far"), over(catalog, home="near")
    far = far.model_copy(update={"imagery": far.imagery.model_copy(update={"archive": "s3://sets/archive"})})
    for settings in (far, near):
        plan(settings)
    return far, near


def objects(client) -> dict[str, int]:
    """Key → bytes; without the empty marks of folders that Arrow leaves where it has removed something."""
    found = client.list_objects_v2(Bucket="sets").get("Contents", [])
    return {each["Key"]: each["Size"] for each in found if not each["Key"].endswith("/")}


def made(settings: Settings) -> list:
    return [ingest_shard(settings, shard) for shard in (0, 1)]


def test_tars_in_the_store_are_those_of_a_folder_and_so_is_all_that_is_read_from_them(both, client):
    far, near = both
    made(far), made(near)
    for shard in shard_folders(near.paths.archive):
        twin = far.paths.archive / shard.name
        assert sorted(path.name for path in twin.iterdir()) == ["chips.parquet", "chips.tar.json", "quarantine.parquet"]
        stored = tar_store.pointer(twin)
        assert stored
        assert object_store.read(stored.address) == (shard / "chips.tar").read_bytes()
        assert (twin / "chips.parquet").read_bytes() == (shard / "chips.parquet").read_bytes()
        assert tar_store.tar_size(twin) == (shard / "chips.tar").stat().st_size
        row = read_index(shard).to_pylist()[1]
        assert (read_chip(twin, row) == read_chip(shard, row)).all()
    for one, other in zip(iter_chips(far.paths.archive), iter_chips(near.paths.archive), strict=True):
        assert (one.location_id, one.period, one.season) == (other.location_id, other.period, other.season)
        assert (one.pixels == other.pixels).all()
    assert verify_archive(far.paths.archive) == []
    assert [str(one) for one in list_shards(far.paths.archive)] == [str(one) for one in list_shards(near.paths.archive)]


def test_the_store_alone_is_an_archive_once_all_shards_are_there(both, client):
    far, near = both
    made(far), made(near)
    with pytest.raises(UserError, match="no such list"):
        ArchiveReader(f"s3://sets/archive/{far.profile}/{far.vintage}.json")
    collect(far)
    reader = ArchiveReader(f"s3://sets/archive/{far.profile}/{far.vintage}.json")
    twin = ArchiveReader(near.paths.archive, near.paths.locations)
    pointed = ArchiveReader(far.paths.archive, far.paths.locations)
    for shard in (0, 1):
        assert reader.chips(shard) == twin.chips(shard)
        for where in twin.chips(shard):
            assert reader.read_bytes(*where) == twin.read_bytes(*where) == pointed.read_bytes(*where)
    with pytest.raises(UserError, match="has no shard=0007"):
        reader.chips(7)


def test_a_shard_made_again_sends_nothing_and_one_that_changes_overwrites_nothing(both, client, monkeypatch):
    far, _ = both
    first = made(far)
    before = objects(client)
    shutil.rmtree(far.paths.records / "archive")
    sent = []
    monkeypatch.setattr(object_store.Upload, "__init__", lambda self, address: sent.append(address))
    again = made(far)
    assert sent == []
    assert [product.content_hash for product in again] == [product.content_hash for product in first]
    monkeypatch.undo()
    assert objects(client) == before


def test_an_upload_that_breaks_off_leaves_no_object_and_the_next_run_asks_no_provider(both, client, monkeypatch):
    far, near = both

    class Broken(object_store.Upload):
        def write(self, data):
            if self.tell() > 5000:
                raise KeyboardInterrupt
            return super().write(data)

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "Upload", Broken)
        with pytest.raises(KeyboardInterrupt):
            ingest_shard(far, 0)
    assert objects(client) == {}
    assert not (far.paths.archive / "shard=0000").exists()
    with monkeypatch.context() as patch:
        patch.setattr("caco_assets.imagery.ingest.fill_shard.read_chips", lambda *_: pytest.fail("pixels were read again"))
        product = ingest_shard(far, 0)
    ingest_shard(near, 0)
    assert (
        object_store.read(tar_store.pointer(product.path).address) == (near.paths.archive / "shard=0000" / "chips.tar").read_bytes()
    )


def test_what_is_lost_or_cut_in_the_store_is_found_and_made_again(both, client):
    far, _ = both
    made(far)
    (lost, cut) = (tar_store.pointer(far.paths.archive / f"shard={number:04d}") for number in (0, 1))
    client.delete_object(Bucket="sets", Key=lost.address.removeprefix("s3://sets/"))
    object_store.write(cut.address, object_store.read(cut.address)[:-512])
    assert [str(one) for one in verify_archive(far.paths.archive)] == [
        f"shard=0000: chips.tar is not at {lost.address}",
        f"shard=0001: {cut.address} has {cut.bytes - 512} bytes, not {cut.bytes}",
    ]
    (far.paths.records / "archive" / "shard=0000.json").unlink()
    ingest_shard(far, 0)
    assert object_store.size(lost.address) == lost.bytes


def test_a_wrong_byte_in_the_store_is_found(both, client):
    far, _ = both
    made(far)
    stored = tar_store.pointer(far.paths.archive / "shard=0000")
    row = read_index(far.paths.archive / "shard=0000").to_pylist()[2]
    data = bytearray(object_store.read(stored.address))
    data[row["offset"] + row["length"] // 2] ^= 1
    object_store.write(stored.address, bytes(data))
    assert [str(one) for one in verify_archive(far.paths.archive)] == [
        f"shard=0000: {row['id']} is not what its index says (sha256)"
    ]


def test_neighbours_come_in_one_request_and_what_lies_far_apart_in_its_own(client, tmp_path, monkeypatch):
    chips = [(f"L{k:07d}/p0s0.tif", np.random.default_rng(k).bytes(3000)) for k in range(40)]
    ranges = tar_store.store_tar(tmp_path, "s3://sets/x", lambda stream: pack_tar(stream, chips))
    rows = [{"offset": offset, "length": length} for offset, length, _ in ranges]
    asked = []
    monkeypatch.setattr(tar_store, "BLOCK", 20_000)
    whole = tar_store.read_stored
    monkeypatch.setattr(tar_store, "read_stored", lambda far, *where: asked.append(where) or whole(far, *where))
    assert list(tar_store.read_members(tmp_path, rows)) == [data for _, data in chips]
    assert len(asked) == 8
    assert max(length for _, length in asked) <= 20_000
    asked.clear()
    some = [rows[0], rows[20], rows[21], rows[5]]
    assert list(tar_store.read_members(tmp_path, some)) == [chips[k][1] for k in (0, 20, 21, 5)]
    assert len(asked) == 3


def test_an_address_that_is_none_and_a_bucket_that_is_not_there_are_said_in_one_line(client, monkeypatch):
    monkeypatch.setenv("CACO_IMAGERY__ARCHIVE", "s3://key:secret@host/bucket")
    with pytest.raises(UserError, match="CACO_IMAGERY__ARCHIVE"):
        load_settings("tiny")
    with pytest.raises(UserError, match=r"^s3://nowhere/a: .*; check the store and its login"):
        object_store.write("s3://nowhere/a", b"x")
    with pytest.raises(FileNotFoundError):
        object_store.read("s3://sets/nothing")


def test_the_place_of_the_archive_changes_no_product(both):
    from caco_assets.resources.dvc.params import stage_settings

    far, near = both
    assert stage_settings(far) == stage_settings(near)
    assert "archive" not in json.dumps(stage_settings(far)["archive"]["imagery"])


def test_a_tar_of_the_workspace_is_taken_as_it_is_when_the_setting_changes(both, client, tmp_path: Path):
    far, near = both
    moved = near.model_copy(update={"imagery": far.imagery})
    made(near)
    assert [product.reused for product in made(moved)] == [True, True]
    collect(moved)
    assert objects(client) == {}
