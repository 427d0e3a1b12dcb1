from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from caco_assets.core.errors import UserError
from caco_assets.inference.embed import embed, embed_array, embed_file
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, PixelFormat, Preprocessing

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), 0)


def _pixels(height: int, width: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 5000, (count, height, width), dtype=np.uint16)


def _write(path: Path, pixels: np.ndarray, *, names: tuple[str, ...] = BANDS, **profile: Any) -> Path:
    basic = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_600_000, 10, 10), "nodata": 0, "dtype": pixels.dtype}
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **{**basic, **profile}) as target:
        target.write(pixels)
        for index, name in enumerate(names):
            target.set_band_description(index + 1, name)
    return path


def test_vectors_are_those_of_the_encoder_on_the_same_pixels(logged, encoder: Encoder, tmp_path: Path) -> None:
    lines = logged()
    pixels = _pixels(96, 64)
    found = embed(_write(tmp_path / "scene.tif", pixels), encoder, tile=32)
    assert not any("skipping" in line for line in lines)
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == [
        (0, 0), (0, 32), (32, 0), (32, 32), (64, 0), (64, 32)
    ]  # fmt: skip
    tiles = np.stack([pixels[:, r : r + 32, c : c + 32] for r, c in zip(found.rows, found.columns, strict=True)])
    wanted = encoder.features(tiles, replace(ARCHIVE, bands=BANDS), 32)
    np.testing.assert_allclose(found.vectors, wanted, rtol=1e-5, atol=1e-5)
    one = embed(_write(tmp_path / "one.tif", pixels[:, :32, :32]), encoder, tile=32)
    np.testing.assert_array_equal(one.vectors, encoder.features(tiles[:1], replace(ARCHIVE, bands=BANDS), 32))


def test_partial_tiles_are_skipped_with_a_message(logged, encoder: Encoder, tmp_path: Path) -> None:
    lines = logged()
    found = embed(_write(tmp_path / "scene.tif", _pixels(70, 100)), encoder, tile=32)
    assert len(found.vectors) == 6
    assert any("skipping partial tiles: 4 columns at the right, 6 rows at the bottom" in line for line in lines)


def test_footprints_lie_where_the_pixels_do(encoder: Encoder, tmp_path: Path) -> None:
    image = _write(tmp_path / "scene.tif", _pixels(64, 64))
    embed(image, encoder, tile=32).write(tmp_path / "out" / "tiles.parquet")
    frame = gpd.read_parquet(tmp_path / "out" / "tiles.parquet")
    assert frame.crs == "EPSG:32631"
    assert frame.geometry.iloc[1].bounds == (500_320, 4_599_680, 500_640, 4_600_000)
    assert frame.geometry.union_all().area == pytest.approx(640 * 640)
    assert len(frame["embedding"].iloc[0]) == encoder.width


def test_csv_and_npz_hold_the_same_vectors(encoder: Encoder, tmp_path: Path) -> None:
    found = embed(_write(tmp_path / "scene.tif", _pixels(64, 64)), encoder, tile=32)
    found.write(tmp_path / "tiles.csv")
    found.write(tmp_path / "tiles.npz")
    table = pd.read_csv(tmp_path / "tiles.csv")
    np.testing.assert_allclose(table.filter(regex=r"^f\d+$").to_numpy(), found.vectors, rtol=1e-5)
    assert (table["x"][0], table["y"][0]) == (500_160, 4_599_840)
    with np.load(tmp_path / "tiles.npz") as arrays:
        np.testing.assert_array_equal(arrays["embedding"], found.vectors)
    with pytest.raises(UserError, match=r"\.xlsx is not an embeddings format"):
        found.write(tmp_path / "tiles.xlsx")


def test_scale_and_offset_come_from_the_file_unless_told(encoder: Encoder, tmp_path: Path) -> None:
    pixels = _pixels(32, 32)
    image = _write(tmp_path / "scene.tif", pixels)
    with rasterio.open(image, "r+") as target:
        target.scales, target.offsets = (2e-4,) * 4, (-0.1,) * 4
    wanted = encoder.features(pixels[None], PixelFormat(BANDS, 2e-4, -0.1), 32)
    np.testing.assert_array_equal(embed(image, encoder, tile=32).vectors, wanted)
    told = embed(image, encoder, tile=32, reflectance_per_dn=1e-4, offset=0.0)
    np.testing.assert_array_equal(told.vectors, encoder.features(pixels[None], replace(ARCHIVE, bands=BANDS), 32))
    assert not np.array_equal(told.vectors, wanted)


def test_bands_can_be_named_and_the_share_of_nodata_is_told(encoder: Encoder, tmp_path: Path) -> None:
    pixels = _pixels(32, 64)
    pixels[0, :16, 32:] = 0
    plain = _write(tmp_path / "plain.tif", pixels, names=())
    with pytest.raises(UserError, match="have no names; give them in file order"):
        embed(plain, encoder, tile=32)
    found = embed(plain, encoder, tile=32, bands=BANDS)
    np.testing.assert_allclose(found.nodata, [0, 0.5])
    with pytest.raises(UserError, match="3 names for the 4 bands"):
        embed(plain, encoder, tile=32, bands=BANDS[:3])


def test_what_cannot_be_embedded_is_refused_with_a_reason(encoder: Encoder, tmp_path: Path) -> None:
    pixels = _pixels(64, 64)
    cases = {
        "also needs B04": _write(tmp_path / "bands.tif", pixels[:2], names=("B02", "B03")),
        "expected integers": _write(tmp_path / "float.tif", pixels.astype(np.float32)),
        "smaller than a tile of 64": _write(tmp_path / "small.tif", pixels[:, :40]),
    }
    with pytest.warns(NotGeoreferencedWarning):
        cases["has no georeference; add it with"] = _write(tmp_path / "nowhere.tif", pixels, crs=None, transform=None)
    (tmp_path / "text.tif").write_text("no picture")
    cases["not readable as a GeoTIFF"] = tmp_path / "text.tif"
    whole = _write(tmp_path / "cut.tif", pixels)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for said, image in cases.items():
        with pytest.raises(UserError, match=said):
            embed(image, encoder)
    with pytest.raises(UserError, match="not readable as a GeoTIFF"):
        embed(whole, encoder)
    with pytest.raises(UserError, match="tile=0"):
        embed(_write(tmp_path / "fine.tif", pixels), encoder, tile=0)


def test_overlapping_tiles_cover_every_pixel_of_any_size(logged, encoder: Encoder, tmp_path: Path) -> None:
    lines = logged()
    pixels = _pixels(70, 100)
    found = embed(_write(tmp_path / "scene.tif", pixels), encoder, tile=32, overlap=True)
    assert not any("skipping" in line for line in lines)
    assert sorted(set(found.rows.tolist())) == [0, 32, 38]
    assert sorted(set(found.columns.tolist())) == [0, 32, 64, 68]
    covered = np.zeros((70, 100), bool)
    for row, column in zip(found.rows, found.columns, strict=True):
        covered[row : row + 32, column : column + 32] = True
    assert covered.all()
    last = encoder.features(pixels[None, :, 38:70, 68:100], replace(ARCHIVE, bands=BANDS), 32)
    np.testing.assert_allclose(found.vectors[-1:], last, rtol=1e-5, atol=1e-5)


def test_an_array_gives_the_vectors_of_the_same_file(encoder: Encoder, tmp_path: Path) -> None:
    pixels = _pixels(70, 64)
    pixels[:, :32, :32] = 0
    wanted = embed(_write(tmp_path / "scene.tif", pixels), encoder, tile=32)
    found = embed_array(pixels, replace(ARCHIVE, bands=BANDS), encoder, tile=32, nodata=0)
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    np.testing.assert_array_equal(found.nodata, wanted.nodata)
    assert found.frame().geometry.iloc[1].bounds == (32, 0, 64, 32)
    found.write(tmp_path / "tiles.parquet")
    assert gpd.read_parquet(tmp_path / "tiles.parquet").crs is None
    np.save(tmp_path / "scene.npy", pixels)
    np.testing.assert_array_equal(embed_file(tmp_path / "scene.npy", encoder, bands=BANDS, tile=32).vectors, wanted.vectors)
    with pytest.raises(UserError, match="does not name its bands"):
        embed_file(tmp_path / "scene.npy", encoder, tile=32)
    with pytest.raises(UserError, match=r"of shape \(4, height, width\)"):
        embed_array(pixels[0], replace(ARCHIVE, bands=BANDS), encoder)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(UserError, match="not readable as an array"):
        embed_file(tmp_path / "text.npy", encoder, bands=BANDS)


def test_the_former_module_still_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="has moved to caco_assets.inference.embed"):
        from caco_assets.registry.embed import embed as former
    assert former is embed
