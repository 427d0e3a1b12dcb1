"""The stage `change_maps` on the archive of the tiny profile: georeferenced maps, made once and again when the encoder changes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.io import MemoryFile

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, content_hash, recorded
from caco_assets.imagery.archive.shard import read_bytes, read_index
from caco_assets.imagery.archive.tar_store import open_tar
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.on_record import archive_shards
from caco_assets.pretraining.stage import map_changes
from caco_assets.settings import Settings, load_settings


@pytest.fixture
def made(tiny_home: Path, tmp_path: Path) -> tuple[Settings, Product]:
    home = tmp_path / "home"
    shutil.copytree(tiny_home, home, symlinks=True)
    settings = load_settings("tiny", home=home)
    return settings, save_encoder(settings, seed=0)


def save_encoder(settings: Settings, seed: int) -> Product:
    folder = settings.paths.encoder
    preprocessing = Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32)
    Encoder.random("test_resnet", preprocessing, seed).save(folder, {}, {})
    return Product("encoder", folder, f"seed {seed}", content_hash(folder))


def test_each_map_lies_where_its_chip_does_and_is_made_once_for_an_encoder(made: tuple[Settings, Product]) -> None:
    settings, encoder = made
    pack, shards = recorded(settings.paths.records, "pack"), archive_shards(settings)
    product = map_changes(settings, pack, encoder, shards)
    rows = pq.read_table(product.path / "change_maps.parquet").to_pylist()
    assert len(rows) == product.facts["places"] == product.facts["georeferenced"]
    assert "place_auroc_change_map" in product.facts

    chips = {row["location_id"]: (shard.path, row) for shard in shards for row in read_index(shard.path).to_pylist()}
    row = rows[-1]
    shard, chip_row = chips[row["location_id"]]
    with open_tar(shard) as stream:
        chip = read_bytes(stream, chip_row)
    tar = (product.path / "maps.tar").read_bytes()
    with (
        MemoryFile(chip) as one,
        one.open() as image,
        MemoryFile(tar[row["offset"] : row["offset"] + row["length"]]) as two,
        two.open() as cells,
    ):
        assert cells.crs == image.crs
        assert cells.bounds == image.bounds
        assert cells.res == (20.0, 20.0)
        assert np.quantile(cells.read(1), 0.995) == pytest.approx(row["score"])
    with rasterio.open(f"/vsitar/{product.path / 'maps.tar'}/{row['location_id']}.tif") as in_place:
        assert in_place.shape == (settings.imagery.chip_size // 2,) * 2

    assert map_changes(settings, pack, encoder, shards).reused
    other = save_encoder(settings, seed=1)
    again = map_changes(settings, pack, other, shards)
    assert not again.reused
    assert again.content_hash != product.content_hash


@pytest.mark.parametrize(
    ("file", "at", "named"),
    [
        ("encoder/encoder.safetensors", -1, "its content"),
        ("data/pack/images-0000.npy", 5000, "other bytes than when it was written"),
        ("data/archive/shard=0000/chips.tar", 5000, "not what its index says"),
    ],
)
def test_maps_are_made_of_the_recorded_bytes_alone(made: tuple[Settings, Product], file: str, at: int, named: str) -> None:
    settings, encoder = made
    path = settings.paths.root / file
    before, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=named):
        map_changes(settings, recorded(settings.paths.records, "pack"), encoder, archive_shards(settings))
    assert not settings.paths.change_maps.exists()
