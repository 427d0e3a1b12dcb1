"""A byte that has changed on disk, with size and time kept: found where it is read, before anything is made from it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from caco_assets.core import products
from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash, folder_hash, produce, recorded, verified, verify
from caco_assets.evaluation.stage import report
from caco_assets.imagery.archive.shard import INDEX, iter_chips, read_chip, read_index
from caco_assets.pretraining.loading.gpu_images import Resident
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.on_record import archive_shards
from caco_assets.pretraining.pack.format import DESCRIPTION, TABLE, Pack
from caco_assets.pretraining.stage import build_pack
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Pretraining, Settings


def flip(file: Path, at: int) -> None:
    """Change one bit of a file and keep its size and times, as a disk that forgets does."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def without_sums(folder: Path) -> str:
    """Make the pack one of an earlier version; its content hash."""
    table = pq.read_table(folder / TABLE).drop_columns(["crc32"])
    pq.write_table(table, folder / TABLE)
    about = json.loads((folder / DESCRIPTION).read_text())
    for entry in about["files"]:
        del entry["md5"]
    (folder / DESCRIPTION).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return content_hash(folder)


def config(folder: Path, target: Path, **data: str) -> RunConfig:
    small = {"backbone": "test_resnet", "image_size": 32, "batch_size": 8, "queue_size": 8, "epochs": 1, "embedding_dim": 8}
    return RunConfig(pack=folder, target=target, data=data, pretraining=Pretraining(objective="moco_v2", device="cpu", **small))


def test_the_hash_of_a_pack_follows_from_its_two_small_files(tmp_path: Path, make_pack: Callable[..., Path]) -> None:
    pack = Pack.open(make_pack(tmp_path / "pack"))
    assert pack.is_named(content_hash(pack.folder)) is True
    assert pack.is_named("0" * 32 + ".dir") is False
    flip(pack.folder / TABLE, 200)
    assert pack.is_named(content_hash(tmp_path / "pack")) is True
    other = make_pack(tmp_path / "other", places=11)
    assert pack.is_named(content_hash(other)) is False


@pytest.mark.parametrize("place", [0, 7, 11])
def test_a_changed_pixel_is_found_when_it_is_read_and_the_others_are_not_touched(
    tmp_path: Path, make_pack: Callable[..., Path], place: int
) -> None:
    folder = make_pack(tmp_path / "pack")
    image = 40 * 40 * 3
    flip(folder / "images-0000.npy", 128 + (place * 6 + 4) * image + 1000)
    pack = Pack.open(folder)
    with pytest.raises(UserError, match=rf"damaged \(L{place:07d}, period 1, season 1 in images file 0 has other bytes"):
        pack.image(place, 1, 1)
    assert pack.image(place, 1, 0).shape == (40, 40, 3)
    with pytest.raises(UserError, match="has other bytes"):
        Resident(pack, [0, 1, 2], torch.device("cpu"), 2)


def test_a_training_stops_at_a_changed_pixel(tmp_path: Path, make_pack: Callable[..., Path]) -> None:
    folder = make_pack(tmp_path / "pack")
    named = content_hash(folder)
    for place in range(12):
        for date in range(6):
            flip(folder / "images-0000.npy", 128 + (place * 6 + date) * 4800 + 17)
    with pytest.raises(UserError, match="has other bytes than when it was written"):
        make_encoder(config(folder, tmp_path / "encoder", pack=named))
    assert not (tmp_path / "encoder" / "encoder.safetensors").exists()


def test_a_training_refuses_another_pack_than_the_one_it_is_recorded_to_read(
    tmp_path: Path, make_pack: Callable[..., Path]
) -> None:
    folder = make_pack(tmp_path / "pack")
    with pytest.raises(UserError, match=r"is not the pack 0123\.dir that this training is recorded to read"):
        make_encoder(config(folder, tmp_path / "encoder", pack="0123.dir"))


def test_a_pack_of_an_earlier_version_is_used_after_a_comparison_of_all_of_it(
    tmp_path: Path, make_pack: Callable[..., Path], logged: Callable[[], list[str]]
) -> None:
    folder = make_pack(tmp_path / "pack")
    named = without_sums(folder)
    assert Pack.open(folder).is_named(named) is None
    lines = logged()
    facts = make_encoder(config(folder, tmp_path / "encoder", pack=named))
    assert facts["places"] == 12
    assert [line for line in lines if "without checksums" in line] == [
        f"{folder}: built without checksums of its images, every byte is compared now, once; a pack that is built again has them"
    ]
    flip(folder / "images-0000.npy", 1000)
    with pytest.raises(UserError, match="is not the pack"):
        make_encoder(config(folder, tmp_path / "again", pack=named))


def test_a_chip_is_compared_with_its_checksum_by_every_reader(small_archive: Path) -> None:
    folder = small_archive / "shard=0000"
    row = read_index(folder).to_pylist()[1]
    flip(folder / "chips.tar", row["offset"] + row["length"] // 2)
    with pytest.raises(UserError, match=rf"chips\.tar: chip {row['id']} is not what its index says"):
        list(iter_chips(small_archive))
    with pytest.raises(UserError, match=row["id"]):
        read_chip(folder, row)


def test_a_shard_without_its_tar_or_its_folder_is_not_left_out(small_archive: Path, settings: Settings) -> None:
    (small_archive / "shard=0001" / "chips.tar").unlink()
    with pytest.raises(UserError, match=r"chips\.tar: missing"):
        list(iter_chips(small_archive))
    records = settings.paths.records
    for name in ("shard=0000", "shard=0001"):
        path = settings.paths.archive / name
        produce(f"archive/{name}", path, records=records, recipe="1", inputs={"name": name}, make=lambda path: folder_of(path))
    products._remove(settings.paths.archive / "shard=0001")
    with pytest.raises(UserError, match=r"shard=0001: missing, with 1 of 2 recorded shards"):
        archive_shards(settings)


def folder_of(path: Path) -> dict:
    path.mkdir(parents=True)
    pq.write_table(pa.table({"id": [1, 2, 3]}), path / INDEX)
    (path / "chips.tar").write_bytes(bytes(1024))
    return {}


def test_the_pack_is_not_built_from_a_changed_index(settings: Settings) -> None:
    path = settings.paths.archive / "shard=0000"
    produce("archive/shard=0000", path, records=settings.paths.records, recipe="1", inputs={}, make=folder_of)
    shards = archive_shards(settings)
    flip(path / INDEX, 20)
    with pytest.raises(UserError, match=rf"{INDEX}: is not what was recorded"):
        build_pack(settings, shards)


def text(path: Path) -> dict:
    path.write_text("value")
    return {}


def test_a_small_product_that_has_changed_is_made_again_aloud(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    made = {"records": tmp_path / "records", "recipe": "1", "inputs": {}, "make": text}
    first = produce("thing", tmp_path / "thing", **made)
    flip(tmp_path / "thing", 0)
    lines = logged()
    with pytest.raises(UserError, match=r"its content .* is not what was recorded"):
        verified(tmp_path / "records", "thing")
    again = produce("thing", tmp_path / "thing", **made)
    assert (first.content_hash, again.reused) == (again.content_hash, False)
    assert (tmp_path / "thing").read_text() == "value"
    assert [line for line in lines if "is not what was recorded" in line]


def test_other_valid_scores_are_not_reported(settings: Settings) -> None:
    path, records = settings.paths.scores, settings.paths.records

    def scores(target: Path) -> dict:
        pq.write_table(pa.table({"value": [0.5]}), target)
        return {}

    produce("scores", path, records=records, recipe="1", inputs={}, make=scores)
    pq.write_table(pa.table({"value": [0.9]}), path)
    with pytest.raises(UserError, match=r"scores\.parquet: its content .* is not what was recorded"):
        report(settings)


def test_a_file_that_was_added_removed_or_changed_is_named(tmp_path: Path) -> None:
    records = tmp_path / "records"

    def folder(path: Path) -> dict:
        path.mkdir()
        for name in ("a", "b"):
            (path / name).write_text(name)
        return {}

    product = produce("thing", tmp_path / "thing", records=records, recipe="1", inputs={}, make=folder)
    assert folder_hash(json.loads((records / "thing.json").read_text())["files"]) == product.content_hash
    verify(records, product)
    (product.path / "c").write_text("c")
    with pytest.raises(UserError, match="c: does not belong here"):
        verify(records, product)
    (product.path / "c").unlink()
    (product.path / "b").unlink()
    verify(records, product, "a")
    with pytest.raises(UserError, match="b: is missing"):
        verify(records, product)
    flip(product.path / "a", 0)
    with pytest.raises(UserError, match="a: is not what was recorded"):
        verify(records, product, "a")


def test_a_record_of_an_earlier_version_is_verified_by_its_hash(tmp_path: Path) -> None:
    records = tmp_path / "records"
    produce("thing", tmp_path / "thing", records=records, recipe="1", inputs={}, make=folder_of)
    record = json.loads((records / "thing.json").read_text())
    del record["files"]
    (records / "thing.json").write_text(json.dumps(record))
    verify(records, recorded(records, "thing"), INDEX)
    flip(tmp_path / "thing" / "chips.tar", 3)
    with pytest.raises(UserError, match="is not what was recorded"):
        verify(records, recorded(records, "thing"), INDEX)


def test_a_sampler_reads_what_the_pack_checks(tmp_path: Path, make_pack: Callable[..., Path]) -> None:
    """Images that were drawn are those that were checked."""
    from caco_assets.pretraining.loading.cpu_loader import Loader
    from caco_assets.pretraining.objectives import objective_class

    plan = objective_class("moco_v2").plan
    sampler = Sampler(make_pack(tmp_path / "pack"), plan, batch_size=4, image_size=32, crop_scale=(0.2, 1.0), seed=0)
    for _ in Loader(sampler, threads=2).epoch(0):
        pass
    read = sampler.pack.checked.reshape(12, -1).sum(axis=1)
    assert (read >= 1).all()
    assert np.array_equal(sampler.pack.checked.any(axis=(1, 2)), np.ones(12, bool))


def test_validation_finds_a_changed_image_in_its_sample(tmp_path: Path, make_pack: Callable[..., Path]) -> None:
    from caco_assets.validation.facts.pack import FIELDS, _changed
    from caco_assets.validation.facts.table import read_parquet

    folder = make_pack(tmp_path / "pack", places=3)
    rows = read_parquet(folder / TABLE, FIELDS)

    def sample() -> dict[int, np.ndarray]:
        return dict(enumerate(np.load(folder / "images-0000.npy")))

    assert _changed(folder, rows, sample()) == {}
    flip(folder / "images-0000.npy", 128 + (1 * 6 + 5) * 4800)
    assert _changed(folder, rows, sample()) == {"images-0000.npy": "L0000001 p1s2 has other bytes than when it was written"}
    without_sums(folder)
    assert _changed(folder, rows, sample()) == {}
