"""Pixels of the small archive, and its items."""

from __future__ import annotations

import pytest
from small_products import chip_pixels


@pytest.fixture
def pixels_of():
    """`chip_pixels`, for tests."""
    return chip_pixels


@pytest.fixture
def stac_items():
    """Reads the chips of a shard as STAC items (JSON); an item that names a collection must link to it: here the table itself."""
    from stac_geoparquet.arrow import stac_table_to_items

    from caco_assets.imagery.archive.shard import INDEX, read_index

    link = {"rel": "collection", "href": INDEX, "type": "application/vnd.apache.parquet"}
    return lambda shard: [{**item, "links": [link]} for item in stac_table_to_items(read_index(shard))]
