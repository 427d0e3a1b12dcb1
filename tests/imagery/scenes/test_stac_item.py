import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.imagery.scenes.stac_item import ItemRefusedError, processing_baseline, scene_from_item
from caco_assets.settings import S2_BANDS

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}


def item(assets: dict, **properties) -> dict:
    return {
        "id": "x", "geometry": SQUARE, "assets": assets,
        "properties": {"datetime": "2022-06-01T10:00:00Z", "s2:processing_baseline": "04.00", **properties},
    }  # fmt: skip


def real_item(real: Path, name: str) -> dict:
    return json.loads((real / "stac_items" / f"{name}.json").read_text())


def test_planetary_computer_items_have_bands_baseline_and_an_integer_epsg(real):
    search = json.loads((real / "stac_items" / "planetarycomputer_search_35MNM_2020-06_2020-07.geojson").read_text())
    scenes = [scene_from_item(one, S2_BANDS) for one in search["features"]]
    assert len(scenes) == 13
    assert {scene.epsg for scene in scenes} == {32735}
    assert {scene.processing_baseline for scene in scenes} == {"02.12"}
    assert {scene.radiometry for scene in scenes} == {Radiometry(1e-4, 0.0, 0.0)}
    assert scenes[0].datetime == datetime(2020, 7, 31, 8, 6, 11, 24000, tzinfo=UTC)
    assert scenes[0].cloud_cover == pytest.approx(0.004742)
    assert scenes[0].hrefs["B8A"].endswith("B8A_20m.tif")
    assert set(scenes[0].hrefs) == {*S2_BANDS, "SCL"}


def test_earth_search_items_take_their_baseline_from_the_product_name(real):
    scene = scene_from_item(real_item(real, "earthsearch_v0_S2A_28QCH_20200714_0_L2A"), S2_BANDS)
    assert scene.processing_baseline == "02.14"
    assert scene.radiometry == Radiometry(1e-4, 0.0, 0.0)
    assert scene.hrefs["B02"].endswith("/B02.tif")


def test_common_names_and_the_finest_resolution_are_understood(real):
    scene = scene_from_item(real_item(real, "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126"), S2_BANDS)
    assert scene.epsg == 32633
    assert scene.radiometry == Radiometry(1e-4, -0.1, 0.0)
    assert not scene.exceptions
    assert scene.hrefs["B02"].endswith("B02_10m.tif")
    assert scene.hrefs["B05"].endswith("B05_20m.tif")
    assert scene.hrefs["B01"].endswith("B01_20m.tif")
    assert scene.hrefs["B09"].endswith("B09_60m.tif")
    assert scene.hrefs["SCL"].endswith("SCL_20m.tif")


def test_a_band_with_an_unusual_offset_keeps_it(real):
    bands = ("B02", "B03", "B04")
    found = real_item(real, "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LBQ")
    declared = {
        band: found["assets"][key]["raster:bands"][0]["offset"] for band, key in zip(bands, ("blue", "green", "red"), strict=True)
    }
    scene = scene_from_item(found, bands)
    read = {band: scene.exceptions.get(band, scene.radiometry).offset for band in bands}
    assert read == declared
    assert -0.7 in read.values()


@pytest.mark.parametrize("suffix", ["20230626T022157", "20230626T022158"])
def test_a_tile_across_the_antimeridian_has_a_footprint_in_two_parts(real, suffix):
    scene = scene_from_item(real_item(real, f"S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_{suffix}"), S2_BANDS)
    assert scene.geometry.geom_type == "MultiPolygon"
    assert scene.geometry.is_valid
    assert scene.geometry.area < 10
    assert scene.processing_baseline == "05.09"


def test_level_1c_is_refused(real):
    with pytest.raises(ItemRefusedError, match="Level-1C"):
        scene_from_item(real_item(real, "S2A_MSIL1C_20200717T221941_R029_T01LAC_20200717T234135"), ("B02",))


def test_every_real_item_but_the_level_1c_one_can_be_read(real):
    refused = []
    for path in sorted((real / "stac_items").iterdir()):
        content = json.loads(path.read_text())
        for one in content.get("features", [content]):
            try:
                assert set(S2_BANDS) <= set(scene_from_item(one, S2_BANDS).hrefs)
            except ItemRefusedError as error:
                refused.append((path.name[:10], str(error)))
    assert [name for name, _ in refused] == ["S2A_MSIL1C"]


def test_the_flag_that_the_offset_was_applied_has_the_last_word():
    band = {"href": "b.tif", "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}]}
    assert scene_from_item(item({"blue": band}), ("B02",)).radiometry.offset == -0.1
    applied = item({"blue": band}, **{"earthsearch:boa_offset_applied": True})
    assert scene_from_item(applied, ("B02",)).radiometry.offset == 0.0
    not_applied = item({"blue": band}, **{"earthsearch:boa_offset_applied": False})
    assert scene_from_item(not_applied, ("B02",)).radiometry.offset == -0.1


@pytest.mark.parametrize(("baseline", "offset"), [("02.14", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.11", -0.1)])
def test_without_raster_bands_the_baseline_decides(baseline, offset):
    scene = scene_from_item(item({"B02": {"href": "b.tif"}}, **{"s2:processing_baseline": baseline}), ("B02",))
    assert scene.radiometry == Radiometry(1e-4, offset, 0.0)


def test_raster_facts_of_stac_1_1_are_read_from_asset_and_bands():
    assets = {"B02_10m": {"href": "b.tif", "nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1, "bands": [{"name": "B02"}]}}
    found = item(assets, **{"processing:version": "05.11"})
    del found["properties"]["s2:processing_baseline"]
    scene = scene_from_item(found, ("B02",))
    assert scene.processing_baseline == "05.11"
    assert scene.radiometry == Radiometry(1e-4, -0.1, 0.0)


def test_bands_of_one_file_are_numbered_from_one():
    bands = [{"name": "B02"}, {"name": "B03"}]
    rasters = [{"scale": 1e-4, "offset": 0.0}, {"scale": 2e-4, "offset": 0.0}]
    scene = scene_from_item(item({"data": {"href": "f.tif", "bands": bands, "raster:bands": rasters}}), ("B02", "B03"))
    assert scene.hrefs == {"B02": "f.tif#band=1", "B03": "f.tif#band=2"}
    assert {scene.radiometry.scale, scene.exceptions["B03"].scale} == {1e-4, 2e-4}


def test_a_rendered_picture_is_never_taken_for_bands():
    picture = {"href": "tci.tif", "roles": ["data"], "eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}]}
    with pytest.raises(ItemRefusedError, match="lacks B02"):
        scene_from_item(item({"visual": picture, "visual_60m": picture}), ("B02",))


def test_numbers_of_unknown_meaning_are_refused():
    found = item({"B02": {"href": "b.tif"}})
    del found["properties"]["s2:processing_baseline"]
    with pytest.raises(ItemRefusedError, match="neither by raster:bands nor by a processing baseline"):
        scene_from_item(found, ("B02",))


def test_an_item_without_a_date_or_footprint_is_refused():
    with pytest.raises(ItemRefusedError, match="no datetime"):
        scene_from_item(item({"B02": {"href": "b.tif"}}, datetime=None), ("B02",))
    with pytest.raises(ItemRefusedError, match="no footprint"):
        scene_from_item({**item({"B02": {"href": "b.tif"}}), "geometry": None}, ("B02",))


def test_helper_bands_come_along_only_without_a_scene_classification():
    assets = {name: {"href": f"{name}.tif"} for name in ("B02", "B04", "B11")}
    assert set(scene_from_item(item(assets), ("B02",), ("B04", "B11", "B12")).hrefs) == {"B02", "B04", "B11"}
    assets["SCL"] = {"href": "SCL.tif"}
    assert set(scene_from_item(item(assets), ("B02",), ("B04", "B11", "B12")).hrefs) == {"B02", "SCL"}


def test_an_unknown_cloud_cover_is_none_and_a_naive_date_is_utc():
    scene = scene_from_item(item({"B02": {"href": "b.tif"}}, datetime="2022-06-01T10:00:00"), ("B02",))
    assert scene.cloud_cover is None
    assert scene.datetime == datetime(2022, 6, 1, 10, tzinfo=UTC)
    assert processing_baseline({"id": "S2A_MSIL2A_20230101T000000_N0509_R001_T01ABC_20230101T010101", "properties": {}}) == "05.09"


TABLE = {
    "S2A_MSIL1C_20200717T221941_R029_T01LAC_20200717T234135": "Level-1C",
    "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857": (32707, "02.12", 0.0, 1, 51.580326),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157": (32601, "05.09", -0.1, 2, 15.047897),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158": (32601, "05.09", -0.1, 2, 15.047897),
    "S2A_OPER_MSI_L2A_TL_SGS__20181231T210250_A018414_T10SDG": (32610, "02.11", 0.0, 1, 2.779036),
    # its metadata gives all bands this offset, not the usual one
    "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LBQ": (32734, "04.00", -0.7, 1, 92.696983),
    "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126": (32633, "04.00", -0.1, 1, 98.944211),
    "earthsearch_v0_S2A_28QCH_20200714_0_L2A": (32628, "02.14", 0.0, 1, 2.36),
    "planetarycomputer_S2B_MSIL2A_20190629T212529_R043_T06VVN": (32606, "02.12", 0.0, 1, 0.314306),
    "planetarycomputer_search_35MNM_2020-06_2020-07": (32735, "02.12", 0.0, 1, None),
}
"""File → EPSG, baseline, offset of all bands, parts of the footprint, cloud cover (none: of thirteen); or why it is refused."""


def test_the_table_holds_every_real_item(real):
    assert {path.name.rsplit(".", 1)[0] for path in (real / "stac_items").iterdir()} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_each_real_item_is_planned_rightly_or_refused_with_its_reason(real, name):
    (path,) = (real / "stac_items").glob(f"{name}.*json")
    content = json.loads(path.read_text())
    for found in content.get("features", [content]):
        if isinstance(TABLE[name], str):
            with pytest.raises(ItemRefusedError, match=TABLE[name]):
                scene_from_item(found, S2_BANDS)
            continue
        epsg, baseline, offset, parts, cloud = TABLE[name]
        scene = scene_from_item(found, S2_BANDS)
        read = {band: scene.exceptions.get(band, scene.radiometry) for band in S2_BANDS}
        assert read == dict.fromkeys(S2_BANDS, Radiometry(1e-4, offset, 0.0))
        assert (scene.epsg, scene.processing_baseline) == (epsg, baseline)
        assert scene.geometry.geom_type == ("Polygon" if parts == 1 else "MultiPolygon")
        assert len(getattr(scene.geometry, "geoms", [0])) == parts
        assert scene.geometry.is_valid
        assert cloud is None or scene.cloud_cover == cloud
        assert "SCL" in scene.hrefs
        west, _, east, _ = scene.geometry.bounds
        assert -180 <= west < east <= 180


def test_bands_with_different_nodata_values_are_refused():
    def asset(nodata: int) -> dict:
        return {"href": "x.tif", "raster:bands": [{"scale": 1e-4, "offset": 0, "nodata": nodata}]}

    with pytest.raises(ItemRefusedError, match="different nodata"):
        scene_from_item(item({"B02": asset(0), "B03": asset(1)}), ("B02", "B03"))
