import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.folder import date_of, index_folder
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.settings import FolderSource

BANDS = ("B02", "B03")


def put(folder: Path, name: str, count: int = 2, crs: str | None = "EPSG:4326") -> Path:
    folder.mkdir(exist_ok=True)
    place = {"crs": crs, "transform": Affine(1e-4, 0, 2.8, 0, -1e-4, 42.3)}
    layers = np.random.default_rng(0).integers(1, 3000, (count, 300, 300)).astype(np.int16)
    with rasterio.open(folder / name, "w", driver="GTiff", count=count, width=300, height=300, dtype="int16", **place) as raster:
        raster.write(layers)
    return folder / name


def source(folder: Path, **changes) -> FolderSource:
    return FolderSource(**{"path": folder, "bands": BANDS, **changes})


def index(tmp_path: Path, **changes) -> tuple[dict, Path]:
    target = tmp_path / ".catalog.partial-0123"
    return index_folder(source(tmp_path / "tifs", **changes), target), target


def test_each_file_becomes_an_item_with_what_its_numbers_mean(tmp_path):
    path = put(tmp_path / "tifs", "Lake_2020-01-13.tif")
    put(tmp_path / "tifs", "Lake_2021-06-01.TIF")
    facts, target = index(tmp_path, scale=2e-4, offset=-0.1, nodata=-9999)
    assert {name: facts[name] for name in ("items", "refused", "refused_files")} == {"items": 2, "refused": 0, "refused_files": {}}
    assert (facts["first"], facts["last"]) == ("2020-01-13", "2021-06-01")
    item = next(pystac.Catalog.from_file(str(target / "catalog.json")).get_items(recursive=True))
    assert item.datetime == datetime(2020, 1, 13, 12, tzinfo=UTC)
    assert "eo:cloud_cover" not in item.properties
    assert item.properties["proj:code"] == "EPSG:4326"
    assert item.bbox == pytest.approx([2.8, 42.27, 2.83, 42.3])
    asset = item.assets["data"]
    assert Path(item.get_self_href()).parent.joinpath(asset.href).resolve() == path
    assert asset.extra_fields["bands"] == [{"name": "B02"}, {"name": "B03"}]
    assert asset.extra_fields["raster:bands"][1] == {"scale": 2e-4, "offset": -0.1, "data_type": "int16", "nodata": -9999}
    assert sorted(path.name for path in target.iterdir()) == ["catalog.json", "folder", "items.parquet", "refused.json", "source"]


def test_the_static_catalog_reads_items_parquet_and_the_linked_items_alike(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    _, target = index(tmp_path, nodata=None)
    interval = (datetime(2020, 1, 13, tzinfo=UTC), datetime(2020, 1, 14, tzinfo=UTC))
    by_table = StaticCatalog.open(target, BANDS).search((2.81, 42.28, 2.82, 42.29), interval)
    (target / "items.parquet").unlink()
    by_links = StaticCatalog.open(target, BANDS).search((2.81, 42.28, 2.82, 42.29), interval)
    assert [replace(scene, hrefs={}) for scene in by_table] == [replace(scene, hrefs={}) for scene in by_links]
    for band in BANDS:
        assert (target / by_table[0].hrefs[band]).resolve() == Path(by_links[0].hrefs[band]).resolve(), "one file, two ways"
    assert by_table[0].radiometry.nodata is None
    assert by_table[0].hrefs["B03"].endswith("a_2020-01-13.tif#band=2")


def test_a_search_asks_for_place_and_half_open_time(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    catalog = StaticCatalog.open(index(tmp_path)[1], BANDS)
    noon = datetime(2020, 1, 13, 12, tzinfo=UTC)
    later = datetime(2020, 2, 1, tzinfo=UTC)
    assert len(catalog.search((2.7, 42.2, 2.9, 42.4), (noon, later))) == 1
    assert catalog.search((2.7, 42.2, 2.9, 42.4), (datetime(2019, 1, 1, tzinfo=UTC), noon)) == []
    assert catalog.search((3.7, 42.2, 3.9, 42.4), (noon, later)) == []
    assert len(catalog.search((170.0, 42.2, 2.9, 42.4), (noon, later))) == 1  # a box across the antimeridian


def test_a_folder_without_a_catalog_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no catalog there \(neither items.parquet nor catalog.json\)"):
        StaticCatalog.open(tmp_path, BANDS)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOILT = {
    "truncated": (truncate, r"Read failed|IReadBlock|scanline|Read error|TIFF"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "html": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>Access denied</html>"), "a page of HTML"),
    "xml": (lambda path: path.write_bytes(b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"), "a page of XML"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_listed_with_its_reason_and_the_others_are_kept(logged, tmp_path, kind):
    spoil, reason = SPOILT[kind]
    put(tmp_path / "tifs", "good_2020-01-13.tif")
    spoil(put(tmp_path / "tifs", "bad_2020-01-18.tif"))
    said = logged()
    facts = index_folder(source(tmp_path / "tifs"), tmp_path / "catalog")
    assert (facts["items"], facts["refused"]) == (1, 1)
    refused = json.loads((tmp_path / "catalog" / "refused.json").read_text())
    assert refused == facts["refused_files"]
    assert list(refused) == ["bad_2020-01-18.tif"]

    assert re.search(reason, refused["bad_2020-01-18.tif"])
    assert str(tmp_path) not in refused["bad_2020-01-18.tif"]
    assert any("bad_2020-01-18.tif refused" in line for line in said)


def test_a_file_with_another_number_of_bands_or_no_place_is_refused(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    put(tmp_path / "tifs", "b_2020-01-14.tif", count=3)
    put(tmp_path / "tifs", "c_2020-01-15.tif", crs=None)
    refused = index(tmp_path)[0]["refused_files"]
    assert refused["b_2020-01-14.tif"] == "3 bands found, imagery.source.bands lists 2"
    assert refused["c_2020-01-15.tif"] == "has no georeference"


def test_a_folder_of_spoilt_files_alone_is_an_error_with_the_reasons(tmp_path):
    put(tmp_path / "tifs", "b_2020-01-14.tif", count=3)
    with pytest.raises(UserError, match=r"none of the 1 GeoTIFFs can be used .*3 bands found"):
        index(tmp_path)


def test_a_missing_folder_and_an_empty_one_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"imagery.source.path=.*tifs: no such folder"):
        index(tmp_path)
    (tmp_path / "tifs").mkdir()
    (tmp_path / "tifs" / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="no GeoTIFF in it"):
        index(tmp_path)


def test_names_without_a_usable_date_are_errors():
    assert date_of(Path("S2_20200113.tif"), r"(\d{8})").date().isoformat() == "2020-01-13"
    for name, pattern, message in [
        ("lake.tif", r"(\d{4}-\d{2}-\d{2})", "lake.tif: no date in this name"),
        ("a_2020-13-45.tif", r"(\d{4}-\d{2}-\d{2})", "'2020-13-45' is no date"),
        ("a_2020-01-13.tif", r"\d{4}", "needs a group in brackets"),
        ("a_2020-01-13.tif", r"(\d{4}", "not a regular expression"),
    ]:
        with pytest.raises(UserError, match=message):
            date_of(Path(name), pattern)


def test_two_files_of_one_name_are_an_error(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    put(tmp_path / "tifs", "a_2020-01-13.tiff")
    with pytest.raises(UserError, match="two files are called a_2020-01-13"):
        index(tmp_path)


def test_a_year_or_a_month_alone_stands_for_its_middle():
    assert date_of(Path("1985.tif"), r"(\d{4})\.tif").isoformat() == "1985-07-01T12:00:00+00:00"
    assert date_of(Path("a_2020-02.tif"), r"(\d{4}-\d{2})").isoformat() == "2020-02-15T12:00:00+00:00"
    with pytest.raises(UserError, match=r"'2020-13' is no date \(needs 2020-01-13, 20200113, 2020-01 or 2020\)"):
        date_of(Path("a_2020-13.tif"), r"(\d{4}-\d{2})")


def test_bands_named_twice_or_not_at_all_are_errors(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    with pytest.raises(UserError, match=r"imagery.source.bands=B02,B02: B02 appears twice; name every band of the files once"):
        index(tmp_path, bands=("B02", "B02"))
    with pytest.raises(UserError, match=r"imagery.source.bands=: no band; name every band"):
        index(tmp_path, bands=())


def test_a_file_that_names_its_bands_in_another_order_is_refused(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    with rasterio.open(put(tmp_path / "tifs", "b_2020-01-14.tif"), "r+") as raster:
        raster.descriptions = ("B03", "B02")
    facts, _ = index(tmp_path)
    assert facts["refused_files"] == {"b_2020-01-14.tif": "names its bands B03, B02: another order than imagery.source.bands"}


def test_doubts_are_said_and_kept_with_the_product(logged, tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    with rasterio.open(put(tmp_path / "tifs", "b_2020-01-14.tif", crs="EPSG:3857"), "r+") as raster:
        raster.nodata = -1
    said = logged()
    facts = index_folder(source(tmp_path / "tifs", scale=1.0, nodata=0), tmp_path / "out")
    first, second, third, fourth, fifth = facts["notes"]
    assert first.startswith("a_2020-01-13.tif: its middle reflectance is 1.")
    assert first.endswith("by scale=1 and offset=0; check them")
    assert second.startswith("b_2020-01-14.tif: its middle reflectance")
    assert third == "b_2020-01-14.tif: says that -1 means no data; the given nodata 0 is used"
    assert fourth == "the files are in 2 projections (EPSG:3857, EPSG:4326); chips are read from each as it is"
    assert fifth.startswith("no band SCL, and not both B02 and B04: cloud is not looked for")
    assert [line.removeprefix("catalog: ") for line in said if line.removeprefix("catalog: ") in facts["notes"]] == facts["notes"]


def test_a_folder_of_one_band_files_serves_its_band(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif", count=1)
    _, target = index(tmp_path, bands=("pan",))
    interval = (datetime(2020, 1, 13, tzinfo=UTC), datetime(2020, 1, 14, tzinfo=UTC))
    (scene,) = StaticCatalog.open(target, ("pan",)).search((2.81, 42.28, 2.82, 42.29), interval)
    assert scene.hrefs["pan"].endswith("a_2020-01-13.tif#band=1")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--bands", "B02,B02"], "imagery.source.bands=B02,B02: B02 appears twice"),
        (["--bands", "B02,B03,B04"], "none of the 1 GeoTIFFs can be used (a_2020-01-13.tif: 2 bands found"),
        (["--bands", "B02,B03", "--scale", "0"], "--scale=0.0: Input should be greater than 0"),
        (["--bands", "B02,B03", "--nodata", "nothing"], "--nodata='nothing'"),
        (["--bands", "B02,B03", "--date-pattern", r"(\d{8})"], r"a_2020-01-13.tif: no date in this name by date_pattern=(\d{8})"),
    ],
)
def test_what_a_user_states_wrongly_is_one_line_with_the_way_out(tmp_path, options, expected):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    done = CliRunner().invoke(main, ["catalog", "build", str(tmp_path / "tifs"), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caco: ")]
    assert expected in line


def test_nodata_none_takes_every_number_for_data(tmp_path):
    put(tmp_path / "tifs", "a_2020-01-13.tif")
    options = ["--bands", "B02,B03", "--nodata", "none", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["catalog", "build", str(tmp_path / "tifs"), *options])
    assert done.exit_code == 0, done.stderr
    item = next(pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json")).get_items(recursive=True))
    assert "nodata" not in item.assets["data"].extra_fields["raster:bands"][0]
