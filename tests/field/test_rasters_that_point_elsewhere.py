"""Files under the name of an image that make GDAL read other files of this machine, or ask a server."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from folder_chips import GRID, NORTH_UP, numbers, write_raster

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.folder import index_folder
from caco_assets.imagery.catalogs.open import catalog_folder
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.reading.gdal import UnreadableError, open_raster
from caco_assets.imagery.reading.http.cog_reader import _in_memory
from caco_assets.imagery.reading.http.tiff_index import read_index
from caco_assets.imagery.reading.scene_reader import SceneFiles, Want, read_chips
from caco_assets.imagery.scenes.hrefs import href_problem
from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.imagery.scenes.stac_item import ItemRefusedError, scene_from_item
from caco_assets.inference.embed import embed
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.sampling.footprints import raster_footprint
from caco_assets.settings import FolderSource, StacApiSource, load_settings

VRT = (
    '<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32631</SRS>'
    "<GeoTransform>498000,10,0,4651020,0,-10</GeoTransform>"
    '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)
SECRET = 7777


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A private raster of this machine."""
    return write_raster(tmp_path / "private" / "secret.tif", np.full((1, 64, 64), SECRET, np.uint16))


@pytest.fixture(params=["plain", "byte-order mark"])
def vrt(request, tmp_path: Path, secret: Path) -> Path:
    """A description of the private raster under the name of an image."""
    path = tmp_path / "tifs" / "a_2020-01-13.tif"
    path.parent.mkdir()
    path.write_bytes((b"\xef\xbb\xbf" if request.param != "plain" else b"") + VRT.format(side=64, secret=secret).encode())
    return path


def test_gdal_with_all_its_drivers_would_read_the_private_raster(vrt):
    with rasterio.open(vrt) as raster:
        assert raster.read().max() == SECRET


def test_every_reader_refuses_a_vrt_under_the_name_of_an_image(vrt, tmp_path):
    refused = pytest.raises(
        UnreadableError, match=r"description of other files \(VRT, WMS\): only GeoTIFF and JPEG 2000 are opened"
    )
    with refused, open_raster(str(vrt)):
        pass
    with pytest.raises(UserError, match=r"none of the 1 GeoTIFFs can be used \(a_2020-01-13.tif: a description of other files"):
        index_folder(FolderSource(path=vrt.parent, bands=("B02",)), tmp_path / "catalog")
    encoder = Encoder.random("resnet10t", Preprocessing.of_pack(("B02",), "seco", 32), 0)
    with pytest.raises(UserError, match="a description of other files"):
        embed(vrt, encoder, tile=32, bands=("B02",))
    with pytest.raises(ValueError, match="not readable as a raster"):
        raster_footprint(vrt)


def test_overviews_and_masks_are_not_read_through_a_side_file(tmp_path, secret):
    image = write_raster(tmp_path / "a.tif", np.full((1, 512, 512), 5, np.uint16))
    image.with_name("a.tif.ovr").write_text(VRT.format(side=64, secret=secret))
    with rasterio.open(image) as raster:
        assert raster.read(1, out_shape=(64, 64)).max() == SECRET, "what GDAL does by itself"
    with pytest.raises(UnreadableError, match=r"a\.tif\.ovr beside it is no TIFF"), open_raster(str(image)):
        pass


def test_overviews_of_an_image_itself_or_in_a_tiff_beside_it_are_fine(tmp_path):
    image = write_raster(tmp_path / "a.tif", numbers(1))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(image, "r+") as raster:
        raster.build_overviews([2])
    assert image.with_name("a.tif.ovr").exists()
    with open_raster(str(image)) as raster:
        assert raster.count == 1


def test_a_tag_of_a_tiff_that_names_another_file_is_refused_on_disk_and_over_http(tmp_path, secret):
    """GDAL reads overviews from where the tag OVERVIEW_FILE says."""
    image = tmp_path / "a.tif"
    with rasterio.open(
        image, "w", driver="GTiff", count=1, width=512, height=512, dtype="uint16", crs="EPSG:32631", transform=NORTH_UP
    ) as raster:
        raster.write(np.full((1, 512, 512), 5, np.uint16))
        raster.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with rasterio.open(image) as raster:
        assert raster.read(1, out_shape=(64, 64)).max() == SECRET, "what GDAL does by itself"
    with pytest.raises(UnreadableError, match="OVERVIEW_FILE makes GDAL read another file"), open_raster(str(image)):
        pass
    index = read_index(image.read_bytes())
    assert index is not None
    with pytest.raises(UnreadableError, match="OVERVIEW_FILE"), _in_memory(index, {}):
        pass


HREFS = {
    "inline XML": (" \ufeff<VRTDataset/>", "has XML in place of an href"),
    "a chain of prefixes": ("/vsizip//vsicurl/http://10.0.0.1/a.zip/a.tif", "prefix vsizip of GDAL"),
    "a web address by prefix": ("/vsicurl/http://169.254.169.254/latest", "prefix vsicurl of GDAL"),
    "a VRT connection": ("vrt:///etc/a.tif", "has an href with vrt:, which is none of http, https, s3, gs, az"),
    "an archive scheme": ("zip+https://a.b/c.zip!d.tif", r"has an href with zip\+https:"),
}


def an_item(href: str) -> dict:
    ring = [[2.9, 41.9], [3.1, 41.9], [3.1, 42.1], [2.9, 42.1], [2.9, 41.9]]
    return {
        "id": "a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": "2020-01-01T00:00:00Z", "s2:processing_baseline": "03.00"},
        "assets": {"B02": {"href": href}},
    }


@pytest.mark.parametrize("kind", HREFS)
@pytest.mark.parametrize("local", [True, False])
def test_an_item_whose_href_is_an_instruction_for_gdal_is_refused_with_the_reason(tmp_path, kind, local):
    href, reason = HREFS[kind]
    with pytest.raises(ItemRefusedError, match=reason):
        scene_from_item(an_item(href), ("B02",), local=local)
    scene = SceneFiles("a", {"B02": href}, {"B02": Radiometry(1e-4, 0.0)})
    [(_, outcome)] = read_chips(scene, [GRID], Want(("B02",), 0.5, tmp_path if local else None))
    assert outcome.reason == "unreadable"
    assert outcome.detail


@pytest.mark.parametrize("href", ["/etc/a.tif", "../../a.tif", "file:///etc/a.tif", "//host/a.tif", "GTIFF_DIR:1:/etc/a.tif"])
def test_a_remote_catalog_cannot_name_a_file_of_this_machine_and_a_local_one_can(href):
    with pytest.raises(ItemRefusedError, match=r"path of this machine|href with file:"):
        scene_from_item(an_item(href), ("B02",), local=False)
    assert scene_from_item(an_item(href), ("B02",)).hrefs == {"B02": href}


def test_files_of_this_machine_are_not_read_for_an_api(tmp_path, secret):
    settings = load_settings("tiny", home=tmp_path)
    imagery = settings.imagery.model_copy(update={"source": StacApiSource.model_validate({"url": "https://a.b"})})
    api = settings.model_copy(update={"imagery": imagery})
    assert catalog_folder(api) is None
    scene = SceneFiles("a", {"B02": str(secret)}, {"B02": Radiometry(1e-4, 0.0)})
    [(_, outcome)] = read_chips(scene, [GRID], Want(("B02",), 0.5, None))
    assert (outcome.reason, outcome.pixels) == ("unreadable", None)


@pytest.mark.parametrize(
    "href", ["https://a.b/c.tif", "s3://bucket/c.jp2", "gs://b/c.tif", "az://b/c.tif", "HTTP://a.b/c.tif?sig=x"]
)
def test_addresses_on_the_web_are_read(href):
    assert href_problem(href, local=False) is None


def test_a_parquet_index_refuses_the_same_hrefs_and_keeps_the_other_items(tmp_path):
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    sound = ("https://a.b/c.tif", "./c.tif")
    hrefs = [*sound, *(href for href, _ in HREFS.values())]
    more = {"type": "Feature", "stac_version": "1.0.0", "links": [], "bbox": [2.9, 41.9, 3.1, 42.1]}
    items = [{**an_item(href), **more, "id": f"item-{number}"} for number, href in enumerate(hrefs)]
    to_parquet(parse_stac_items_to_arrow(items), tmp_path / "items.parquet")
    catalog = StaticCatalog.open(tmp_path, ("B02",))
    assert sorted(catalog.refused) == [f"item-{number}" for number in range(len(sound), len(items))]
    assert catalog.refused["item-2"] == "has XML in place of an href"


def test_a_jpeg_2000_file_is_read_and_another_format_only_where_the_source_lists_it(tmp_path):
    layers = numbers(1)
    tif = write_raster(tmp_path / "a.tif", layers)
    rasterio.shutil.copy(tif, tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    rasterio.shutil.copy(tif, tmp_path / "a.png", driver="PNG")
    with open_raster(str(tmp_path / "a.jp2")) as raster:
        assert (raster.read() == layers).all()
    refused = pytest.raises(UnreadableError, match=r"neither a GeoTIFF nor JPEG 2000: .*imagery.source.formats")
    with refused, open_raster(str(tmp_path / "a.png")):
        pass
    with open_raster(str(tmp_path / "a.png"), ("GTiff", "PNG")) as raster:
        assert (raster.read() == layers).all()


def test_a_format_that_reads_other_files_cannot_be_listed(tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("imagery: {source: {kind: catalog, path: /data/catalog, formats: [VRT]}}\n")
    done = CliRunner().invoke(main, ["plan", "--profile", str(profile)])
    assert done.exit_code == 2
    assert "formats" in done.stderr
    assert "'VRT'" in done.stderr


def test_a_source_that_lists_no_format_is_dumped_as_before():
    plain = StacApiSource.model_validate({"url": "https://a.b"})
    assert "formats" not in plain.model_dump(mode="json")
    listed = StacApiSource.model_validate({"url": "https://a.b", "formats": ["NITF"]})
    assert listed.model_dump(mode="json")["formats"] == ["NITF"]


@pytest.mark.parametrize("href", ["a" * 300 + ".tif", "folder.tif", "missing.tif", "file.tif/under.tif", "null\0.tif", ""])
def test_an_href_that_no_file_can_have_costs_its_chip_and_nothing_else(tmp_path, href):
    (tmp_path / "folder.tif").mkdir()
    write_raster(tmp_path / "file.tif", numbers(1))
    scene = SceneFiles("a", {"B02": href}, {"B02": Radiometry(1e-4, 0.0)})
    [(_, outcome)] = read_chips(scene, [GRID], Want(("B02",), 0.5, tmp_path))
    assert outcome.reason == "unreadable"
    assert "\n" not in outcome.detail
