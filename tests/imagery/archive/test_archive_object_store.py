"""Pictures in an S3 store as CDSE keeps them: JPEG 2000 behind keys, read by GDAL's own client from a real S3 API on loopback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from caco_assets.imagery.catalogs.signing import s3_signer
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.scene_reader import SceneFiles, Want, read_chips
from caco_assets.imagery.scenes.radiometry import Radiometry

pytestmark = pytest.mark.integration
EPSG, LEFT, TOP, SIDE = 32631, 498_000.0, 4_651_020.0, 480
BANDS = ("B04", "B03")


@pytest.fixture(scope="module")
def layers() -> np.ndarray:
    return np.random.default_rng(0).integers(1100, 5000, (len(BANDS), SIDE, SIDE), dtype=np.uint16)


@pytest.fixture
def store(tmp_path: Path, layers: np.ndarray, s3_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket `eodata` with two bands and a file that is none; the environment as docs/imagery.md says it for CDSE."""
    import boto3

    monkeypatch.setenv("AWS_S3_ENDPOINT", s3_api.removeprefix("http://"))
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    # the provider's own endpoint speaks TLS, this one does not
    monkeypatch.setenv("AWS_HTTPS", "NO")
    client = boto3.client("s3", endpoint_url=s3_api)
    client.create_bucket(Bucket="eodata")
    profile = {"driver": "JP2OpenJPEG", "crs": f"EPSG:{EPSG}", "transform": Affine(10, 0, LEFT, 0, -10, TOP), "dtype": "uint16"}
    for band, layer in zip(BANDS, layers, strict=True):
        path = tmp_path / f"{band}.jp2"
        with rasterio.open(path, "w", **profile, count=1, height=SIDE, width=SIDE, reversible=True, quality=100) as raster:
            raster.write(layer, 1)
        client.upload_file(str(path), "eodata", f"Sentinel-2/{band}.jp2")
    client.put_object(Bucket="eodata", Key="Sentinel-2/B02.jp2", Body=b"<Error><Code>SlowDown</Code></Error>")


def scene(*bands: str) -> SceneFiles:
    # baseline 04.00 and later: 1000 is zero
    meaning = Radiometry(1e-4, -0.1, 0)
    return SceneFiles("S2", {band: f"s3://eodata/Sentinel-2/{band}.jp2" for band in bands}, dict.fromkeys(bands, meaning))


def test_a_chip_comes_out_of_jpeg_2000_in_an_object_store(store: None, layers: np.ndarray, tmp_path: Path) -> None:
    chip = Grid(EPSG, LEFT + 2000.0, TOP - 1000.0, 64, 10.0)
    [(_, outcome)] = read_chips(scene(*BANDS), [chip], Want(BANDS, 0.5, tmp_path, s3_signer()))
    assert outcome.reason is None, outcome.detail
    assert outcome.pixels is not None
    assert (outcome.pixels == layers[:, 100:164, 200:264] - 1000).all()


@pytest.mark.parametrize("band", ["B02", "B08"], ids=["an error under the name of a picture", "a key that is not there"])
def test_what_the_store_does_not_have_is_refused_with_its_name(store: None, band: str, tmp_path: Path) -> None:
    chip = Grid(EPSG, LEFT, TOP, 64, 10.0)
    [(_, outcome)] = read_chips(scene(band), [chip], Want((band,), 0.5, tmp_path, s3_signer()))
    assert outcome.pixels is None
    assert outcome.reason in ("unreadable", "error_page")
    assert band in outcome.detail
