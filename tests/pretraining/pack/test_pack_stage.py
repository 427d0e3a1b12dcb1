"""The stage `pack`: what it reads, when it is made again, what stops it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce
from caco_assets.imagery.archive import shard as shard_module
from caco_assets.pretraining.encoder.stretch import table
from caco_assets.pretraining.on_record import archive_shards
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.stage import build_pack
from caco_assets.settings import Settings, load_settings


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def quiet(_: str) -> None:
    pass


@pytest.fixture
def archived(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One recorded shard of two places; every pixel of band i is 1000 · (i + 1)."""

    def chips(_: Path, bands: tuple[str, ...]):
        values = np.array([1_000 * (settings.imagery.bands.index(band) + 1) for band in bands], np.uint16)
        side = settings.imagery.chip_size
        pixels = np.broadcast_to(values[:, None, None], (len(bands), side, side))
        for place in range(2):
            for slot in range(2 * settings.imagery.seasons):
                yield Chip(f"L{place:07d}", *divmod(slot, settings.imagery.seasons), 1.0, 2.0, pixels)

    def shard(target: Path) -> dict:
        target.mkdir(parents=True)
        pq.write_table(pa.table({"id": list(range(12))}), target / "chips.parquet")
        return {}

    monkeypatch.setattr(shard_module, "iter_chips", chips)
    path = settings.paths.archive / "shard=0000"
    produce("archive/shard=0000", path, records=settings.paths.records, recipe="1", inputs={}, make=shard)
    return settings


def test_the_pack_holds_the_wanted_bands_in_the_wanted_order(archived: Settings):
    product = build_pack(archived, archive_shards(archived))
    pack = Pack.open(archived.paths.pack, verify=True)
    assert (product.facts["places"], pack.count) == (2, 2)
    bands = archived.imagery.bands
    expected = [table("seco", band)[1_000 * (bands.index(band) + 1)] for band in ("B04", "B03", "B02")]
    assert pack.image(1, 1, 2)[0, 0].tolist() == expected


def test_the_pack_may_hold_more_bands_than_an_encoder_wants(archived: Settings):
    wanted = {"bands": ["B08"], "pack_bands": ["B08", "B02"]}
    more = load_settings("tiny", home=archived.home, pretraining=wanted)
    build_pack(more, archive_shards(more))
    assert Pack.open(more.paths.pack).bands == ("B08", "B02")
    other_bands = load_settings("tiny", home=archived.home, pretraining={**wanted, "bands": ["B02"]})
    assert build_pack(other_bands, archive_shards(other_bands)).reused


def test_it_is_reused_until_a_setting_that_matters_changes(archived: Settings):
    build_pack(archived, archive_shards(archived))
    assert build_pack(archived, archive_shards(archived)).reused
    other_epochs = load_settings("tiny", home=archived.home, pretraining={"epochs": 7})
    assert build_pack(other_epochs, archive_shards(other_epochs)).reused
    other_stretch = load_settings("tiny", home=archived.home, pretraining={"stretch": "eurosat"})
    assert not build_pack(other_stretch, archive_shards(other_stretch)).reused


def test_no_archive_says_what_to_run(settings: Settings):
    with pytest.raises(UserError, match="the archive is empty; ingest it first"):
        build_pack(settings, archive_shards(settings))
