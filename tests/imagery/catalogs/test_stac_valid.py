"""What we write as STAC passes the schemas of STAC 1.1 that pystac carries; no network is asked."""

from datetime import UTC, datetime

import pyarrow.parquet as pq
import pystac
import pytest
from pystac.validation import validate_dict
from stac_geoparquet.arrow import stac_table_to_items

from caco_assets.imagery.archive.shard import read_index
from caco_assets.imagery.catalogs.folder import index_folder
from caco_assets.imagery.catalogs.static import ITEMS
from caco_assets.settings import FolderSource


def core(item: dict) -> None:
    """Validate against the item's own schema; those of extensions are on the web."""
    validate_dict({**item, "stac_extensions": []}, pystac.STACObjectType.ITEM)


def test_every_chip_of_an_index_is_a_valid_item(small_archive, stac_items):
    items = stac_items(small_archive / "shard=0001")
    assert len(items) == read_index(small_archive / "shard=0001").num_rows == 4
    for item in items:
        core(item)
        pystac.Item.from_dict(item).validate()


def test_an_index_that_is_no_stac_is_told_by_the_same_schemas(small_archive, stac_items):
    """The check can fail."""
    from pystac.errors import STACValidationError

    item = stac_items(small_archive / "shard=0000")[0]
    for spoilt in ({**item, "geometry": {"type": "Point"}}, {**item, "assets": {"data": {}}}, {**item, "properties": {}}):
        with pytest.raises(STACValidationError):
            core(spoilt)


def test_every_file_of_an_indexed_folder_is_a_valid_item_in_both_forms(tmp_path, tif):
    import numpy as np

    for date in ("2020-01-13", "2020-06-21"):
        tif(tmp_path / "tifs" / f"lake_{date}.tif", np.ones((2, 64, 64), np.uint16), 498_000.0, 4_651_020.0, 10)
    index_folder(FolderSource(path=tmp_path / "tifs", bands=("B02", "B03")), tmp_path / "catalog")
    catalog = pystac.Catalog.from_file(str(tmp_path / "catalog" / "catalog.json"))
    catalog.validate()
    linked = [item.to_dict() for item in catalog.get_items(recursive=True)]
    tabled = list(stac_table_to_items(pq.read_table(tmp_path / "catalog" / ITEMS)))
    assert len(linked) == len(tabled) == 2
    for item in (*linked, *tabled):
        core(item)


def test_the_time_of_a_chip_is_that_of_its_scene(small_archive, stac_items):
    item = pystac.Item.from_dict(stac_items(small_archive / "shard=0000")[0])
    assert item.datetime == datetime(2018, 1, 1, 10, 30, 15, 250_000, tzinfo=UTC)
