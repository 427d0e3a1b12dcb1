"""Embeds a GeoTIFF or an array of any size: one vector per tile."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.progress import Progress
from caco_assets.inference.embeddings import Embeddings
from caco_assets.pretraining.encoder.encoder import Encoder, PixelFormat
from caco_assets.pretraining.encoder.preprocessing import ARCHIVE

if TYPE_CHECKING:
    import rasterio
    from rasterio.io import DatasetReader

logger = logging.getLogger(__name__)

TILE = 64
"""Default side of a tile, pixels: as in EuroSAT."""
_BATCH = 128


def embed(
    image: Path,
    encoder: Encoder,
    *,
    tile: int = TILE,
    size: int | None = None,
    bands: Sequence[str] | None = None,
    reflectance_per_dn: float | None = None,
    offset: float | None = None,
    overlap: bool = False,
) -> Embeddings:
    """Embed an image tile by tile; the vectors are those of `Encoder.features` on the same pixels.

    Tiles lie side by side from the upper left corner. Partial tiles at the right and lower edge are skipped, which is logged, or
    covered by tiles that overlap their neighbors. They are not padded: the encoder was not trained on padding.

    Args:
        image: georeferenced GeoTIFF of integers.
        encoder: loaded.
        tile: side of a tile, pixels of the image.
        size: side of the network's input, pixels; default: the encoder's own.
        bands: names of the image's bands in file order; default: the band descriptions in the file.
        reflectance_per_dn: reflectance per digital number; default: the band scale in the file, else 1e-4.
        offset: reflectance at digital number 0; default: the band offset in the file, else 0.
        overlap: cover the right and lower edge too.

    Raises:
        UserError: the file is unreadable, not georeferenced or smaller than a tile, or lacks the encoder's bands as integers.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if tile < 1:
        raise UserError(f"tile={tile}: a tile has at least one pixel")
    try:
        with warnings.catch_warnings():
            # raised below as an error with a remedy
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(image) as source:
                if source.crs is None or source.transform.is_identity:
                    raise UserError(f"{image}: is not georeferenced; add it with gdal_edit.py -a_srs … -a_ullr …")
                fmt = _format(source, image, bands, reflectance_per_dn, offset)
                indexes = [index + 1 for index in fmt.select(encoder.preprocessing.bands)]
                read = partial(_strip, source, indexes, tile)
                place = (source.transform, source.crs, source.nodata)
                return _embed(read, (source.height, source.width), place, encoder, fmt, tile, size, overlap, image.name)
    except RasterioError as error:
        raise UserError(f"{image}: not readable as a GeoTIFF ({one_line(error, 200)})") from error


def embed_file(
    image: Path,
    encoder: Encoder,
    *,
    bands: Sequence[str] | None = None,
    reflectance_per_dn: float | None = None,
    offset: float | None = None,
    **options: Any,
) -> Embeddings:
    """`embed` for a GeoTIFF, `embed_array` for a `.npy` file, which needs `bands`; `options` are common to both.

    Raises:
        UserError: as in those, or the file is not an array.
    """
    if image.suffix != ".npy":
        return embed(image, encoder, bands=bands, reflectance_per_dn=reflectance_per_dn, offset=offset, **options)
    if not bands:
        raise UserError(f"{image}: an array does not name its bands; give them in the array's order, such as bands=B02,B03,B04")
    try:
        pixels = np.load(image, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{image}: not readable as an array ({one_line(error, 200)})") from error
    scale = ARCHIVE.reflectance_per_dn if reflectance_per_dn is None else reflectance_per_dn
    fmt = PixelFormat(tuple(bands), scale, ARCHIVE.offset if offset is None else offset)
    return embed_array(pixels, fmt, encoder, name=image.name, **options)


def embed_array(
    pixels: np.ndarray,
    fmt: PixelFormat,
    encoder: Encoder,
    *,
    tile: int = TILE,
    size: int | None = None,
    nodata: float | None = None,
    overlap: bool = False,
    name: str = "array",
) -> Embeddings:
    """Embed an array as `embed` does a file; the coordinates are pixels.

    Args:
        pixels: integers (bands of `fmt`, H, W); may be a memory map.
        fmt: bands, scale and offset of the pixels.
        encoder: loaded.
        tile: side of a tile, pixels.
        size: side of the network's input, pixels; default: the encoder's own.
        nodata: the number that means no data; None: there is none.
        overlap: cover the right and lower edge too.
        name: for messages.

    Raises:
        UserError: the array is not of that shape or of integers, smaller than a tile, or lacks a band of the encoder.
    """
    import rasterio

    if tile < 1:
        raise UserError(f"tile={tile}: a tile has at least one pixel")
    if pixels.ndim != 3 or len(pixels) != len(fmt.bands) or not np.issubdtype(pixels.dtype, np.integer):
        raise UserError(
            f"{name}: {pixels.dtype} of shape {pixels.shape}; expected integers of shape ({len(fmt.bands)}, height, width): "
            f"one layer for each of {', '.join(fmt.bands)}"
        )
    wanted = list(fmt.select(encoder.preprocessing.bands))
    place = (rasterio.Affine.identity(), None, nodata)

    def read(top: int) -> np.ndarray:
        return np.asarray(pixels[wanted, top : top + tile])

    return _embed(read, (pixels.shape[1], pixels.shape[2]), place, encoder, fmt, tile, size, overlap, name)


def _strip(source: DatasetReader, indexes: list[int], tile: int, top: int) -> np.ndarray:
    """Rows `top` to `top + tile` of the bands `indexes`: (C, tile, W)."""
    from rasterio.windows import Window

    return source.read(indexes, window=Window.from_slices((top, top + tile), (0, source.width)))


def _embed(
    read: Callable[[int], np.ndarray],
    extent: tuple[int, int],
    place: tuple[rasterio.Affine, rasterio.CRS | None, float | None],
    encoder: Encoder,
    fmt: PixelFormat,
    tile: int,
    size: int | None,
    overlap: bool,
    name: str,
) -> Embeddings:
    (height, width), (transform, crs, nodata) = extent, place
    if width < tile or height < tile:
        raise UserError(f"{name}: {width} × {height} pixels are smaller than a tile of {tile}; choose a smaller tile")
    left, below = width % tile, height % tile
    if (left or below) and not overlap:
        logger.info(f"{name}: skipping partial tiles: {left} columns at the right, {below} rows at the bottom; overlap covers them")
    tops, starts = _starts(height, tile, overlap), _starts(width, tile, overlap)
    read_as = PixelFormat(encoder.preprocessing.bands, fmt.reflectance_per_dn, fmt.offset)
    vectors, shares = [], []
    progress = Progress(f"embed {name}", len(starts) * len(tops), "tile")
    # one row of tiles at a time, so an image of any height fits into memory
    for top in tops:
        strip = read(top)
        tiles = np.stack([strip[:, :, start : start + tile] for start in starts])  # (across, C, tile, tile)
        vectors.append(encoder.features(tiles, read_as, size, batch_size=_BATCH))
        empty = np.zeros(tiles.shape, bool) if nodata is None else tiles == nodata
        shares.append(empty.any(axis=1).mean(axis=(1, 2)))
        progress.advance(len(starts))
    progress.close()
    rows, columns = np.meshgrid(tops, starts, indexing="ij")
    return Embeddings(
        vectors=np.concatenate(vectors),
        rows=rows.ravel().astype(np.int32),
        columns=columns.ravel().astype(np.int32),
        nodata=np.concatenate(shares).astype(np.float32),
        tile=tile,
        transform=transform,
        crs=crs,
    )


def _starts(length: int, tile: int, overlap: bool) -> list[int]:
    """First pixels of the tiles along one side; with `overlap` the last tile ends at the edge of the image."""
    starts = list(range(0, length - tile + 1, tile))
    return [*starts, length - tile] if overlap and length % tile else starts


def _format(
    source: DatasetReader, image: Path, bands: Sequence[str] | None, reflectance_per_dn: float | None, offset: float | None
) -> PixelFormat:
    """Format of the file's digital numbers: from the arguments, else from the file, else archive values."""
    if not np.issubdtype(np.dtype(source.dtypes[0]), np.integer):
        raise UserError(f"{image}: pixels are {source.dtypes[0]}; expected integers (reflectance × 10 000 as uint16)")
    names = tuple(bands) if bands else tuple(name or "" for name in source.descriptions)
    if len(names) != source.count:
        raise UserError(f"bands={','.join(names)}: {len(names)} names for the {source.count} bands of {image}")
    if not any(names):
        raise UserError(f"{image}: its {source.count} bands have no names; give them in file order, such as bands=B02,B03,B04")
    # a file without scale and offset reports 1 and 0
    scales, offsets = set(source.scales), set(source.offsets)
    if reflectance_per_dn is None and (len(scales) > 1 or len(offsets) > 1):
        raise UserError(f"{image}: its bands have different scales or offsets; give reflectance_per_dn and offset")
    in_file = reflectance_per_dn is None and scales != {1.0}
    scale = scales.pop() if in_file else (ARCHIVE.reflectance_per_dn if reflectance_per_dn is None else reflectance_per_dn)
    zero = offset if offset is not None else (offsets.pop() if in_file else ARCHIVE.offset)
    return PixelFormat(names, scale, zero)
