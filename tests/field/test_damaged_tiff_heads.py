"""GeoTIFFs over HTTP whose first bytes are damaged: an index, a wish for more bytes, or a file left to GDAL, never an error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.cog_reader import RemoteFiles
from caco_assets.imagery.reading.http.range_response import RangeResponse
from caco_assets.imagery.reading.http.tiff_index import NeedMoreError, TiffIndex, read_index

LEFT, TOP = 498_000.0, 4_651_020.0
GRID = Grid(32631, LEFT, TOP, 64, 10.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from tiny_earth import write_tif

    file: Path = tmp_path_factory.mktemp("tif") / "a.tif"
    write_tif(file, np.full((2, 96, 96), 1000, np.uint16), LEFT, TOP, 10)
    return file.read_bytes()


class Held:
    """Gives ranges of bytes at hand, in place of a fetcher."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get(self, wants, versions=None) -> list:
        del versions
        return [RangeResponse(self._data[start:stop], len(self._data)) for _, (start, stop) in wants]


@given(st.data())
@example(None)
def test_whatever_is_damaged_the_index_is_one_or_none_and_reading_has_a_reason(whole, data):
    head = bytearray(whole)
    if data is not None:
        for _ in range(data.draw(st.integers(1, 6))):
            head[data.draw(st.integers(0, min(len(head), 1200) - 1))] = data.draw(st.integers(0, 255))
    try:
        index = read_index(bytes(head))
    except NeedMoreError as error:
        index = error.stop
    assert not isinstance(index, int) or index > len(head)
    if not isinstance(index, TiffIndex) or int(index.counts.max()) > 1 << 20:
        return
    with RemoteFiles(Held(bytes(head)), str).open({"http://a.example/a.tif": [1]}, [GRID]) as opened:
        file = opened["http://a.example/a.tif"]
        if isinstance(file, UnreadableError):
            found = file
        else:
            try:
                found = file.read([1], GRID, nearest=False, nodata=0)
            except UnreadableError as error:
                found = error
    assert isinstance(found, UnreadableError) or found.shape == (1, 64, 64)
    assert data is not None or (found == 1000).all()
