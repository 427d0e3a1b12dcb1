"""Impossible numbers, encoders far below random weights, and test images on pretraining places, each told from what is sound."""

import json
import math
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import dagster as dg
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box

from caco_assets.downstream.assets import scores, scores_are_not_far_below_random, scores_are_of_other_places
from caco_assets.downstream.datasets.geolocation import corners_of, outlines
from caco_assets.downstream.datasets.readers.eurosat import CLASSES
from caco_assets.downstream.score_rows import ScoreRow, write_rows
from caco_assets.downstream.scoring.sanity import FAR, below_random, invalid_scores
from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.sampling.footprints import raster_footprint
from caco_assets.sampling.overlap import zone_outlines
from caco_assets.settings import Settings, load_settings

# dagster asks its resources for fields by pydantic's old name
pytestmark = pytest.mark.filterwarnings("ignore:The `__fields__` attribute")

SOUND = ScoreRow(
    "eurosat_twin", "eurosat", "caco", "candidate", "clean", "linear_probe", 64, 0, "accuracy", 0.6, 0.55, 0.65, 400, "v",
    "models:/caco-tiny/1", "measured", "", None,
)  # fmt: skip
CHANCE = replace(SOUND, encoder="random", role="baseline", value=0.5, ci_low=0.45, ci_high=0.55, model_uri=None)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"value": 1.7, "ci_high": 1.8}, "value is 1.7, outside [0, 1]"),
        ({"value": -0.1, "ci_low": -0.2}, "value is -0.1, outside [0, 1]"),
        ({"value": math.nan}, "value is nan"),
        ({"ci_high": math.inf}, "ci_high is inf"),
        ({"value": None}, "value is missing"),
        ({"ci_low": 0.61}, "the interval [0.61, 0.65] does not hold the value 0.6"),
        ({"n": 0}, "measured on 0 items"),
    ],
)
def test_a_number_that_cannot_be_is_named_with_its_row(broken: dict, says: str) -> None:
    assert invalid_scores([SOUND, CHANCE]) == []
    (line,) = invalid_scores([SOUND, replace(SOUND, **broken)])
    assert line == f"eurosat_twin/caco/clean/linear_probe/64/0/accuracy: {says}"


def test_what_was_not_measured_has_no_number_to_doubt() -> None:
    assert invalid_scores([replace(SOUND, value=None, ci_low=None, ci_high=None, n=0, status="not_measured")]) == []


def test_an_interval_wholly_and_far_below_random_is_a_fault_and_anything_nearer_is_not() -> None:
    def found(value: float, half: float = 0.02, **fields: str) -> list[bool]:
        row = replace(SOUND, value=value, ci_low=value - half, ci_high=value + half, **fields)
        return [each.far for each in below_random([row], [CHANCE])]

    assert found(0.5) == []
    assert found(0.49) == [False]
    assert found(0.5 - FAR - 0.021) == [True]
    assert found(0.5 - FAR - 0.021, half=0.1) == [False]
    # `paper` shows pixels that the encoder was not trained on
    low = replace(SOUND, value=0.2, ci_low=0.1, ci_high=0.3, protocol="paper")
    assert [each.far for each in below_random([low], [replace(CHANCE, protocol="paper")])] == [False]
    # on a few images the intervals of the two overlap
    few = replace(SOUND, value=0.2, ci_low=0.05, ci_high=0.4)
    assert [each.far for each in below_random([few], [replace(CHANCE, ci_low=0.3, ci_high=0.7)])] == [False]
    # what random weights were not measured by is compared with nothing
    assert found(0.2, method="knn5") == []


def test_seeds_are_averaged_before_they_are_compared_with_random() -> None:
    seeds = [replace(SOUND, seed=seed, value=value, ci_low=0.0, ci_high=0.7) for seed, value in enumerate((0.3, 0.6, 0.7))]
    (below,) = below_random(seeds, [CHANCE, replace(CHANCE, seed=1, value=0.6)])
    assert (round(below.value, 4), round(below.random, 4)) == (0.5333, 0.55)


# --- the checks of `scores`, run by Dagster on deliberately bad rows -----------------------------------------------------------


def checked(settings: Settings, check: dg.AssetChecksDefinition) -> dg.AssetCheckEvaluation:
    """The check alone, on the scores that lie there."""
    found = dg.materialize(
        [scores, check],
        selection=dg.AssetSelection.checks(check),
        resources={"profile": Profile(name=profile_of(settings), home=str(settings.home)), "tracking": TrackingResource()},
        raise_on_error=False,
    )
    (evaluation,) = found.get_asset_check_evaluations()
    assert found.success is (evaluation.passed or evaluation.severity is dg.AssetCheckSeverity.WARN)
    return evaluation


def profile_of(settings: Settings) -> str:
    """Where a test has written the profile of its own."""
    return str(settings.home / "mine.yaml")


@pytest.fixture
def mine(tmp_path: Path) -> Settings:
    """A profile with one row of 13-band pictures, and one of photographs."""
    downstream = {
        "tasks": {"ms": {"task": "eurosat_ms", "data": str(tmp_path / "ms")}, "rgb": {"task": "eurosat", "optional": True}},
        "seeds": [0],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps({"vintage": "2026-10", "imagery": {"chip_size": 64}, "downstream": downstream}))
    return load_settings(str(tmp_path / "mine.yaml"), home=tmp_path)


def test_scores_far_below_random_stop_the_chain_and_scores_a_little_below_warn(mine: Settings) -> None:
    write_rows(mine.paths.scores, [replace(SOUND, value=0.3, ci_low=0.25, ci_high=0.35), CHANCE])
    far = checked(mine, scores_are_not_far_below_random)
    assert (far.passed, far.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert far.description == "caco/eurosat_twin/clean/linear_probe/64/accuracy: 0.300 (up to 0.350), random weights 0.500"
    write_rows(mine.paths.scores, [replace(SOUND, value=0.48, ci_low=0.43, ci_high=0.53), CHANCE])
    near = checked(mine, scores_are_not_far_below_random)
    assert (near.passed, near.severity) == (False, dg.AssetCheckSeverity.WARN)
    write_rows(mine.paths.scores, [SOUND])
    assert checked(mine, scores_are_not_far_below_random).description.startswith("not compared")


UTM = 32631
EAST, NORTH = 452_000.0, 5_411_000.0  # Paris


PLANTS = (1200, 900, 850, 700, 950, 1600, 1900, 1850, 750, 20, 1300, 650, 2000)
"""A spectrum in EuroSAT's order of bands: B10, the cirrus band, is dark."""


def write_ms(folder: Path, east: float) -> None:
    """EuroSAT in 13 bands: five pictures of each class, in a row to the east of `east`."""
    for number, name in enumerate(CLASSES):
        (folder / "ds" / "tif" / name).mkdir(parents=True)
        for count in range(1, 6):
            where = from_origin(east + 640 * (5 * number + count), NORTH, 10, 10)
            fields = {"driver": "GTiff", "width": 64, "height": 64, "count": 13, "dtype": "uint16", "interleave": "pixel"}
            with rasterio.open(
                folder / "ds" / "tif" / name / f"{name}_{count}.tif", "w", crs=f"EPSG:{UTM}", transform=where, **fields
            ) as sink:
                pixels = np.array(PLANTS)[:, None, None] * (1 + number / 5) + np.full((13, 64, 64), count)
                sink.write(pixels.astype(np.uint16))
    (folder / "subset.json").write_text('{"images": 50, "note": "written by a test"}')


def write_places(settings: Settings, east: float) -> None:
    """Two places: one at the given easting, one in another country."""
    points = gpd.points_from_xy([east, EAST + 800_000], [NORTH - 320, NORTH], crs=UTM).to_crs(4326)
    frame = gpd.GeoDataFrame({"location_id": ["L0000000", "L0000001"], "lon": points.x, "lat": points.y}, geometry=points)
    settings.paths.locations.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(settings.paths.locations)


def test_test_images_on_a_pretraining_place_are_refused_or_where_allowed_reported(mine: Settings) -> None:
    write_ms(mine.home / "ms", EAST)
    # every class has a picture in validation or test within 5 · 640 m
    write_places(mine, EAST + 640 * 25)
    found = checked(mine, scores_are_of_other_places)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.description == "ms: 1 places meet its images (L0000000)"
    rows = {record.data["row"]: record.data for record in found.metadata["rows"].records}
    assert rows["ms"]["with_place"] == rows["ms"]["images"] > 0
    assert rows["rgb"]["by"].endswith("there is nothing there")
    text = (mine.home / "mine.yaml").read_text()
    (mine.home / "mine.yaml").write_text(text.replace('"seeds"', '"allow_overlap": true, "seeds"'))
    assert checked(mine, scores_are_of_other_places).severity is dg.AssetCheckSeverity.WARN


def test_images_without_a_place_are_said_not_to_be_checked(mine: Settings, make_eurosat) -> None:
    write_ms(mine.home / "ms", EAST)
    make_eurosat(mine.paths.benchmarks / "eurosat")
    write_places(mine, EAST - 5_000)
    found = checked(mine, scores_are_of_other_places)
    assert found.passed
    assert found.description == (
        "1 of 2 rows checked, no place meets an image; rgb not checked: its images carry no place, and no zone of it is known"
    )
    assert found.metadata["rows_checked"].value == 1


@pytest.mark.parametrize("epsg", [32631, 4326, 3035])
def test_corners_by_the_tags_are_those_that_gdal_finds(tmp_path: Path, epsg: int) -> None:
    file = tmp_path / "a.tif"
    step = 1e-4 if epsg == 4326 else 10
    left, top = {32631: (452_000, 5_411_000), 4326: (2.35, 48.85), 3035: (3_760_000, 2_890_000)}[epsg]
    fields = {"driver": "GTiff", "width": 30, "height": 20, "count": 1, "dtype": "uint8"}
    with rasterio.open(file, "w", crs=f"EPSG:{epsg}", transform=from_origin(left, top, step, step), **fields) as sink:
        sink.write(np.zeros((1, 20, 30), np.uint8))
    with file.open("rb") as stream:
        corners = corners_of(stream)
    assert corners is not None
    expected = raster_footprint(file)
    assert np.allclose(box(*expected.bounds).bounds, (*corners.min(axis=0), *corners.max(axis=0)), atol=1e-7)


LAYOUTS = {
    "eurosat_ms": ("ds/tif/Forest/Forest_1.tif", "Forest_1.tif"),
    "bigearthnet": ("BigEarthNet-v1.0/P_1_2/P_1_2_B02.tif", "P_1_2"),
    "bigearthnet_v2": ("BigEarthNet-S2/T/T_1_2/T_1_2_B02.tif", "T_1_2"),
    "oscd": ("Onera Satellite Change Detection dataset - Images.zip", "dubai"),
    "dynamicearthnet": ("labels/1311_3077_13_10N/Labels/Raster/10N/10N-2018_01_01.tif", "1311_3077_13_10N"),
    "whu_cd": ("1. The two-period image data/2012/whole_image/test/image/2012_test.tif", "test"),
    "potsdam": ("4_Ortho_RGBIR/top_potsdam_2_13_RGBIR.tif", "2_13"),
    "vaihingen": ("top/top_mosaic_09cm_area2.tif", "2"),
}


@pytest.mark.parametrize("task", LAYOUTS)
def test_places_are_found_in_the_layout_of_each_data_set_that_has_them(tmp_path: Path, task: str) -> None:
    member, name = LAYOUTS[task]
    file = tmp_path / "data" / member
    file.parent.mkdir(parents=True)
    tif = tmp_path / "a.tif"
    fields = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8", "crs": f"EPSG:{UTM}"}
    with rasterio.open(tif, "w", transform=from_origin(EAST, NORTH, 10, 10), **fields) as sink:
        sink.write(np.zeros((1, 4, 4), np.uint8))
    if member.endswith(".zip"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.write(tif, "Images/dubai/imgs_1_rect/B04.tif")
    else:
        shutil.copyfile(tif, file)
    found = outlines(task, tmp_path / "data", (name, "another"))
    assert list(found) == [name]
    assert found[name][0] == pytest.approx((2.345, 48.849), abs=1e-2)


def test_where_files_have_no_place_the_known_zones_of_a_data_set_serve_but_for_its_training_part() -> None:
    assert len(zone_outlines("oscd")) == 10
    assert len(zone_outlines("eurosat")) == 0


def test_a_data_set_of_photographs_has_no_place(tmp_path: Path) -> None:
    assert outlines("eurosat", tmp_path, ("Forest_1.jpg",)) == {}
