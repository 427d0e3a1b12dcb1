"""Masks saved with a palette, inverted, or with transparency: what the picture shows counts, and nothing is guessed."""

import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.image_decoding import IGNORE, read_image
from caco_assets.downstream.datasets.masks import read_change, read_codes
from caco_assets.downstream.datasets.readers import loveda
from caco_assets.downstream.datasets.readers.isprs import COLORS, classes_of

BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
TRUTH = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)


def png_with_palette(path: Path, numbers: np.ndarray, palette: list[tuple[int, int, int]], **options) -> None:
    image = Image.fromarray(numbers, "P")
    image.putpalette([value for color in palette for value in color])
    image.save(path, **options)


def tif_with_palette(path: Path, numbers: np.ndarray, palette: list[tuple[int, int, int]], shift: int = 8) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, : len(palette)] = np.array(palette, np.uint16).T << shift
    tifffile.imwrite(path, numbers, photometric="palette", colormap=table)


WRITERS = {
    "png": ("x.png", png_with_palette),
    "tif": ("x.tif", tif_with_palette),
    "tif with a palette of eight bits": ("x.tif", lambda path, numbers, palette: tif_with_palette(path, numbers, palette, 0)),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("invert", [False, True], ids=["number 0 is black", "number 0 is white"])
def test_a_change_mask_with_a_palette_is_read_by_its_colours(tmp_path, kind, invert):
    name, write = WRITERS[kind]
    write(tmp_path / name, 1 - TRUTH if invert else TRUTH, [WHITE, BLACK] if invert else [BLACK, WHITE])
    assert (read_change(open_archives(tmp_path), name) == TRUTH).all()


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_mask_of_one_number_is_what_its_colour_shows(tmp_path, kind, number):
    name, write = WRITERS[kind]
    write(tmp_path / name, np.full((8, 9), number, np.uint8), [WHITE, BLACK])
    assert (read_change(open_archives(tmp_path), name) == 1 - number).all()


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(
    ("palette", "says"),
    [
        ([BLACK, RED], "is in colour; this mask is grey"),
        ([BLACK, (128, 128, 128)], "has the value 128, the classes are 0, 1, 255"),
        ([BLACK, BLACK], r"one colour for several of its numbers \(0, 1\)"),
        ([WHITE, WHITE], r"one colour for several of its numbers \(0, 1\)"),
    ],
)
def test_a_palette_that_does_not_say_what_is_change_is_refused_by_name(tmp_path, kind, palette, says):
    name, write = WRITERS[kind]
    write(tmp_path / name, TRUTH, palette)
    with pytest.raises(UserError, match=rf"{name.replace('.', chr(92) + '.')}.*{says}"):
        read_change(open_archives(tmp_path), name)


def test_a_number_without_a_colour_is_refused(tmp_path):
    png_with_palette(tmp_path / "x.png", TRUTH * 3, [BLACK, WHITE, RED, RED])
    data = (tmp_path / "x.png").read_bytes()
    at = data.index(b"PLTE")
    chunk = b"PLTE" + data[at + 4 : at + 10]
    (tmp_path / "x.png").write_bytes(
        data[: at - 4] + struct.pack(">I", 6) + chunk + struct.pack(">I", crc32(chunk)) + data[at + 20 :]
    )
    with pytest.raises(UserError, match=r"x\.png has the number 3, its palette has 2 colours"):
        read_change(open_archives(tmp_path), "x.png")


def test_transparent_pixels_of_a_mask_are_refused(tmp_path):
    png_with_palette(tmp_path / "x.png", TRUTH, [BLACK, WHITE], transparency=0)
    rgba = np.dstack([np.zeros((20, 30, 3), np.uint8), TRUTH * 255])
    Image.fromarray(rgba).save(tmp_path / "y.png")
    for name in ("x.png", "y.png"):
        with pytest.raises(UserError, match=rf"{name[0]}\.png has transparent pixels"):
            read_change(open_archives(tmp_path), name)


def test_an_opaque_alpha_channel_is_no_obstacle(tmp_path):
    white = np.repeat(TRUTH[..., None] * 255, 3, axis=2)
    Image.fromarray(np.dstack([white, np.full_like(TRUTH, 255)])).save(tmp_path / "x.png")
    assert (read_change(open_archives(tmp_path), "x.png") == TRUTH).all()


@pytest.mark.parametrize(
    ("bilevel", "compression"), [(False, None), (False, "lzw"), (True, None), (True, "lzw"), (True, "ccittfax4")]
)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_tif_where_white_is_zero_is_turned(tmp_path, bilevel, photometric, compression):
    stored = TRUTH if photometric == "minisblack" else 1 - TRUTH
    options: dict = {"NBITS": 1} if bilevel else {}
    if compression:
        options["compress"] = compression
    options["transform"] = rasterio.transform.from_origin(0, 20, 1, 1)
    with rasterio.open(
        tmp_path / "x.tif", "w", driver="GTiff", height=20, width=30, count=1, dtype="uint8", photometric=photometric, **options
    ) as file:
        file.write(stored if bilevel else stored * 255, 1)
    assert (read_change(open_archives(tmp_path), "x.tif") == TRUTH).all()


def test_a_grey_mask_is_read_as_before(tmp_path):
    for value in (1, 255):
        Image.fromarray(TRUTH * value).save(tmp_path / "x.png")
        tifffile.imwrite(tmp_path / "x.tif", TRUTH * value)
        Image.fromarray(TRUTH.astype(bool)).save(tmp_path / "one bit.png")
        for name in ("x.png", "x.tif", "one bit.png"):
            assert (read_change(open_archives(tmp_path), name) == TRUTH).all()


def test_a_picture_with_a_palette_is_read_in_its_colours(tmp_path):
    numbers = np.arange(60, dtype=np.uint8).reshape(6, 10) % 3
    colors = [RED, (9, 8, 7), (1, 2, 3)]
    png_with_palette(tmp_path / "x.png", numbers, colors)
    tif_with_palette(tmp_path / "x.tif", numbers, colors)
    for name in ("x.png", "x.tif"):
        assert (read_image(open_archives(tmp_path), name) == np.array(colors, np.uint8)[numbers].transpose(2, 0, 1)).all()


def test_a_mask_of_loveda_with_a_palette_counts_if_its_colours_are_its_grey_codes(tmp_path):
    codes = np.arange(40, dtype=np.uint8).reshape(4, 10) % 8
    expected = np.where(codes == 0, IGNORE, codes.astype(int) - 1)
    png_with_palette(tmp_path / "x.png", 7 - codes, [(7 - grey,) * 3 for grey in range(8)])
    assert (read_codes(open_archives(tmp_path), "x.png", loveda.CODES) == expected).all()
    png_with_palette(tmp_path / "x.png", codes, [(grey * 30, 0, 0) for grey in range(8)])
    with pytest.raises(UserError, match=r"x\.png is in colour; this mask is grey, uint8, with the values 0, 1, 2"):
        read_codes(open_archives(tmp_path), "x.png", loveda.CODES)


def test_a_mask_of_isprs_with_a_palette_is_read_by_its_colours(tmp_path):
    colors, classes = list(COLORS), np.array(list(COLORS.values()), np.uint8)
    numbers = (np.arange(70).reshape(7, 10) % len(colors)).astype(np.uint8)
    tif_with_palette(tmp_path / "x.tif", numbers, colors)
    archives = open_archives(tmp_path)
    assert (classes_of(archives, "x.tif", read_image(archives, "x.tif", mask=True)) == classes[numbers]).all()


def test_a_picture_of_another_kind_is_named(tmp_path):
    Image.fromarray(TRUTH.astype(np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png is a picture of mode I"):
        read_change(open_archives(tmp_path), "x.png")
