"""Where the blocks of a GeoTIFF lie: whatever its layout, the blocks of a window give the pixels that GDAL gives."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from caco_assets.imagery.reading.http.tiff_index import NeedMoreError, read_index


def geotiff(height: int, width: int, bands: int = 1, dtype: str = "uint16", **profile) -> bytes:
    """Random pixels as the bytes of a GeoTIFF."""
    place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 4_650_000), "nodata": 0}
    dice = np.random.default_rng(height * 1000 + width)
    layers = dice.integers(0, 200, (bands, height, width)).astype(dtype)
    with MemoryFile() as memory:
        with memory.open(**{"driver": "GTiff", **place, **profile}, height=height, width=width, count=bands, dtype=dtype) as raster:
            raster.write(layers)
        return bytes(memory.getbuffer())


def parts(data: bytes, index, numbers) -> dict[int, bytes]:
    return {int(n): data[int(index.offsets[n]) : int(index.offsets[n] + index.counts[n])] for n in numbers if index.counts[n]}


def index_or_need(head: bytes):
    """The index, or how many bytes are needed."""
    try:
        return read_index(head), None
    except NeedMoreError as error:
        return None, error.stop


LAYOUTS = st.fixed_dictionaries(
    {},
    optional={
        "compress": st.sampled_from(["deflate", "lzw", "zstd", "packbits"]),
        "interleave": st.sampled_from(["band", "pixel"]),
        "bigtiff": st.just("YES"),
        "endianness": st.sampled_from(["BIG", "LITTLE"]),
        "tiling": st.sampled_from([(16, 16), (32, 16), (64, 64)]),
        "strip": st.integers(1, 40),
        "sparse_ok": st.just(True),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    LAYOUTS,
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 3),
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    st.data(),
)
def test_the_blocks_of_a_window_hold_its_pixels(layout, height, width, bands, dtype, data):
    layout = dict(layout)
    tiling, strip = layout.pop("tiling", None), layout.pop("strip", None)
    if tiling:
        layout |= {"tiled": True, "blockxsize": tiling[0], "blockysize": tiling[1]}
    elif strip:
        layout |= {"blockysize": strip}
    if layout.get("compress") in ("deflate", "lzw", "zstd") and dtype != "float32":
        layout["predictor"] = 2
    content = geotiff(height, width, bands, dtype, **layout)
    index = read_index(content)
    assert index is not None
    assert (index.width, index.height, index.epsg) == (width, height, 32631)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    wanted = sorted(data.draw(st.sets(st.integers(1, bands), min_size=1)))
    window = Window(left, top, right - left, bottom - top)
    extract = index.extract(parts(content, index, index.blocks(left, top, right, bottom, wanted)))
    with MemoryFile(content) as whole, whole.open() as truth, MemoryFile(extract) as some, some.open() as found:
        assert (found.transform, found.crs, found.nodata) == (truth.transform, truth.crs, truth.nodata)
        assert (found.read(wanted, window=window) == truth.read(wanted, window=window)).all()


def test_a_block_that_was_not_fetched_is_an_error_never_an_empty_pixel():
    content = geotiff(128, 128, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    index = read_index(content)
    with MemoryFile(index.extract(parts(content, index, [0]))) as memory, memory.open() as raster:
        assert raster.read(1, window=Window(0, 0, 64, 64)).any()
        with pytest.raises(RasterioError):
            raster.read(1, window=Window(60, 0, 8, 8))


def test_a_block_that_was_never_written_stays_empty():
    with MemoryFile() as memory:
        place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 4_650_000), "nodata": 0}
        shape = {"height": 128, "width": 128, "count": 1, "dtype": "uint16", "tiled": True, "blockxsize": 64, "blockysize": 64}
        with memory.open(driver="GTiff", sparse_ok=True, **place, **shape) as raster:
            raster.write(np.ones((64, 64), np.uint16), 1, window=Window(0, 0, 64, 64))
        content = bytes(memory.getbuffer())
    index = read_index(content)
    assert (index.counts > 0).sum() == 1
    with MemoryFile(index.extract(parts(content, index, range(4)))) as memory, memory.open() as raster:
        assert raster.read(1).sum() == 64 * 64


def test_a_cog_is_indexed_from_its_first_bytes_and_its_overviews_are_left_aside():
    content = geotiff(1024, 1024, driver="COG", compress="deflate", blocksize=256)
    index = read_index(content[:4096])
    assert (index.block_width, len(index.offsets)) == (256, 16)


@given(st.integers(0, 600))
def test_too_few_bytes_say_how_many_are_needed(length):
    content = geotiff(512, 512, driver="COG", compress="deflate", blocksize=128)
    head = content[:length]
    for _ in range(10):
        index, stop = index_or_need(head)
        if stop is None:
            break
        assert len(head) < stop <= len(content)
        head = content[:stop]
    assert (index is None) == (length < 16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II*\0",
        b"<html>not a picture at all</html>",
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
        b"II\x2b\x01" + bytes(40),
        geotiff(20, 20, crs="EPSG:32631", transform=Affine(10, 1, 0, 1, -10, 0)),
        geotiff(20, 20, crs=rasterio.CRS.from_proj4("+proj=laea +lat_0=47 +lon_0=3")),
    ],
)
def test_what_is_no_usual_geotiff_is_left_to_gdal(content):
    assert read_index(content) is None


@given(st.binary(min_size=16, max_size=400), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]))
def test_random_bytes_never_crash_the_reader(noise, start):
    index, stop = index_or_need(start + noise)
    assert stop is None or stop > len(start + noise)
    assert index is None or len(index.offsets) == len(index.counts)


def test_pixels_as_points_are_half_a_pixel_off_as_gdal_has_it(tmp_path):
    (tmp_path / "a.tif").write_bytes(geotiff(20, 20))
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.tags()["AREA_OR_POINT"] == "Point"
        assert read_index((tmp_path / "a.tif").read_bytes()).transform == raster.transform
