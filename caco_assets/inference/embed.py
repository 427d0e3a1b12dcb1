"""Embeds a GeoTIFF or an array of any size: one vector per tile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
ONE_LEVEL = 0.95
"""Share of pixels on one level of the stretch above which an image says next to nothing: usually its scale is wrong."""
_LOOK_EVERY = 4
"""Of a tile's rows and columns, those whose levels are counted."""


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
        bands: names of the image's bands in file order; default: the band descriptions in the file. Other spellings of the
            encoder's bands are understood (`B4`, `red`).
        reflectance_per_dn: reflectance per digital number; default: the band scale in the file, else 1e-4.
        offset: reflectance at digital number 0; default: the band offset in the file, else 0.
        overlap: cover the right and lower edge too.

    Raises:
        UserError: the file is unreadable, not georeferenced, not north up or smaller than a tile, lacks the encoder's bands as
            integers, or names its bands otherwise than `bands`.
    """
    from caco_assets.imagery.reading.gdal import UnreadableError, open_raster

    if tile < 1:
        raise UserError(f"tile={tile}: a tile has at least one pixel")
    try:
        with open_raster(str(image)) as source:
            opened = _open(source, image, encoder.preprocessing.bands, tile, bands, reflectance_per_dn, offset)
            return _embed(opened, encoder, tile, size, overlap)
    except UnreadableError as error:
        way = "; add it with gdal_edit.py -a_srs … -a_ullr …" if "no georeference" in error.detail else ""
        raise UserError(f"{image}: not readable as a GeoTIFF: {error.detail}{way}") from error


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
    if image.suffix.lower() != ".npy":
        return embed(image, encoder, bands=bands, reflectance_per_dn=reflectance_per_dn, offset=offset, **options)
    if not bands:
        raise UserError(f"{image}: an array does not name its bands; give them in the array's order, such as B02,B03,B04 (--bands)")
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
    from caco_assets.imagery.scenes.radiometry import missing

    wanted = list(_spelled(fmt, encoder.preprocessing.bands, name).select(encoder.preprocessing.bands))

    def read(top: int) -> tuple[np.ndarray, np.ndarray]:
        strip = np.asarray(pixels[wanted, top : top + tile])
        return strip, missing(strip, nodata)

    scale = PixelFormat(encoder.preprocessing.bands, fmt.reflectance_per_dn, fmt.offset)
    opened = _Image(name, (pixels.shape[1], pixels.shape[2]), rasterio.Affine.identity(), None, scale, nodata, read)
    return _embed(opened, encoder, tile, size, overlap)


@dataclass(frozen=True)
class _Image:
    """An image that is read a row of tiles at a time."""

    name: str
    extent: tuple[int, int]
    """Height and width, pixels."""
    transform: rasterio.Affine
    crs: rasterio.CRS | None
    fmt: PixelFormat
    """Of the bands that `read` gives, which are the encoder's."""
    nodata: float | None
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    """From the first row of a row of tiles: digital numbers (C, tile, W), and which of them are no data."""


def _embed(image: _Image, encoder: Encoder, tile: int, size: int | None, overlap: bool) -> Embeddings:
    (height, width), name = image.extent, image.name
    if width < tile or height < tile:
        raise UserError(f"{name}: {width} × {height} pixels are smaller than a tile of {tile}; choose a smaller tile")
    left, below = width % tile, height % tile
    if (left or below) and not overlap:
        logger.info(f"{name}: skipping partial tiles: {left} columns at the right, {below} rows at the bottom; overlap covers them")
    tops, starts = _starts(height, tile, overlap), _starts(width, tile, overlap)
    vectors, shares = [], []
    levels = np.zeros((len(image.fmt.bands), 256), np.int64)
    progress = Progress(f"embed {name}", len(starts) * len(tops), "tile")
    # one row of tiles at a time, so an image of any height fits into memory
    for top in tops:
        strip, gone = image.read(top)
        if image.nodata != 0 and gone.any():
            strip = np.where(gone, strip.dtype.type(0), strip)  # as a chip of the archive has it, and not a bright measurement
        tiles, empty = (np.stack([layer[:, :, start : start + tile] for start in starts]) for layer in (strip, gone))
        vectors.append(encoder.features(tiles, image.fmt, size, batch_size=_BATCH))  # of (across, C, tile, tile)
        shares.append(empty.any(axis=1).mean(axis=(1, 2)))
        levels += _levels(encoder, image.fmt, strip, gone)
        progress.advance(len(starts))
    progress.close()
    _warn_of_one_level(image, encoder, levels)
    rows, columns = np.meshgrid(tops, starts, indexing="ij")
    return Embeddings(
        vectors=np.concatenate(vectors),
        rows=rows.ravel().astype(np.int32),
        columns=columns.ravel().astype(np.int32),
        nodata=np.concatenate(shares).astype(np.float32),
        tile=tile,
        transform=image.transform,
        crs=image.crs,
    )


def _starts(length: int, tile: int, overlap: bool) -> list[int]:
    """First pixels of the tiles along one side; with `overlap` the last tile ends at the edge of the image."""
    starts = list(range(0, length - tile + 1, tile))
    return [*starts, length - tile] if overlap and length % tile else starts


def _levels(encoder: Encoder, fmt: PixelFormat, strip: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """How many of some pixels of a strip are on each level of the stretch: (C, 256)."""
    some, known = strip[:, ::_LOOK_EVERY, ::_LOOK_EVERY], ~gone[:, ::_LOOK_EVERY, ::_LOOK_EVERY]
    stretched = encoder.preprocessing.stretched(some[None], fmt)[0]
    return np.stack([np.bincount(layer[there], minlength=256) for layer, there in zip(stretched, known, strict=True)])


def _warn_of_one_level(image: _Image, encoder: Encoder, levels: np.ndarray) -> None:
    counted = levels.sum(axis=1)
    if not counted.all():
        return
    share = float((levels.max(axis=1) / counted).mean())
    if share >= ONE_LEVEL:
        each = ", ".join(str(level) for level in levels.argmax(axis=1).tolist())
        stretch, scale, offset = encoder.preprocessing.stretch.name, image.fmt.reflectance_per_dn, image.fmt.offset
        logger.warning(
            f"{image.name}: {share:.0%} of its pixels are on one level of the stretch {stretch} (of 0 to 255: {each}), so its "
            f"vectors say next to nothing; check scale and offset: they were read as reflectance = number · {scale:g} + {offset:g}"
        )


def _open(
    source: DatasetReader,
    image: Path,
    wanted: tuple[str, ...],
    tile: int,
    bands: Sequence[str] | None,
    reflectance_per_dn: float | None,
    offset: float | None,
) -> _Image:
    """The `wanted` bands of a file, whose numbers mean what the arguments, else the file, else the archive says."""
    from rasterio.windows import Window

    from caco_assets.imagery.reading.file_facts import Said, facts_of
    from caco_assets.imagery.scenes.radiometry import Radiometry, missing

    if not np.issubdtype(np.dtype(source.dtypes[0]), np.integer):
        raise UserError(f"{image}: pixels are {source.dtypes[0]}; expected integers (reflectance × 10 000 as uint16)")
    facts, said = facts_of(source), Said(reflectance_per_dn, offset)
    for note in (*facts.contradictions(said), *facts.doubts()):
        logger.warning(f"{image.name}: {note}")
    usual = Radiometry(ARCHIVE.reflectance_per_dn, ARCHIVE.offset, None)
    named = _spelled(PixelFormat(_names(facts.names, image, bands), usual.scale), wanted, image.name)
    places = named.select(wanted)
    meanings = {facts.radiometry(said, usual)[place] for place in places}
    if len(meanings) > 1:
        raise UserError(f"{image}: its bands have different scales or offsets; give one for all (--scale and --offset)")
    (meaning,) = meanings
    indexes = [place + 1 for place in places]

    def read(top: int) -> tuple[np.ndarray, np.ndarray]:
        window = Window.from_slices((top, top + tile), (0, source.width))
        strip = source.read(indexes, window=window)
        gone = missing(strip, meaning.nodata)
        return strip, gone | (source.read_masks(indexes, window=window) == 0) if facts.masked else gone

    fmt = PixelFormat(wanted, meaning.scale, meaning.offset)
    nodata = None if facts.masked else meaning.nodata
    return _Image(image.name, (source.height, source.width), source.transform, source.crs, fmt, nodata, read)


def _names(own: Sequence[str | None], image: Path, bands: Sequence[str] | None) -> tuple[str, ...]:
    """The names of a file's bands: those given, if the file's own do not speak against them."""
    from caco_assets.imagery.scenes.band_names import contradiction

    if not bands:
        if not any(own):
            raise UserError(f"{image}: its {len(own)} bands have no names; give them in file order, such as B02,B03,B04 (--bands)")
        return tuple(name or "" for name in own)
    if len(bands) != len(own):
        raise UserError(f"--bands {','.join(bands)}: {len(bands)} names for the {len(own)} bands of {image}")
    if (wrong := contradiction(own, bands, "--bands")) is not None:
        raise UserError(f"{image}: {wrong}; give them as the file does, or correct the names in the file")
    return tuple(bands)


def _spelled(fmt: PixelFormat, wanted: tuple[str, ...], name: str) -> PixelFormat:
    """`fmt` with the names of the wanted bands where it spells them otherwise."""
    from caco_assets.imagery.scenes.band_names import spelled_as

    found = spelled_as(fmt.bands, wanted)
    if changed := [f"{own} as {band}" for own, band in zip(fmt.bands, found, strict=True) if own != band]:
        logger.info(f"{name}: band {', '.join(changed)}")
    return PixelFormat(found, fmt.reflectance_per_dn, fmt.offset)
