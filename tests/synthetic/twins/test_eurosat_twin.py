"""The EuroSAT twin stands in the layout of the real one."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.earth.region import CLASSES, FOREST, HIGHWAY, PASTURE, RIVER, SEALAKE
from caco_assets.synthetic.stage import build_benchmarks
from caco_assets.synthetic.twins.eurosat import MS_FOLDER, candidates, label_of, split_lists, town_region

COUNT = 10


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = {"kind": "synthetic", "benchmark_images_per_class": COUNT}
    settings: Settings = load_settings("tiny", home=tmp_path_factory.mktemp("twin"), imagery={"source": source, "workers": 1})
    return build_benchmarks(settings).path


def test_the_zip_holds_the_folders_and_names_of_the_real_one(twin: Path) -> None:
    with zipfile.ZipFile(twin / "eurosat" / "EuroSAT.zip") as archive:
        names = set(archive.namelist())
        assert names == {f"2750/{name}/{name}_{n}.jpg" for name in CLASSES for n in range(1, COUNT + 1)}
        picture = Image.open(io.BytesIO(archive.read("2750/River/River_1.jpg")))
        assert (picture.size, picture.mode, picture.format) == ((64, 64), "RGB", "JPEG")


def test_the_split_lists_share_out_all_pictures(twin: Path) -> None:
    lists = {split: (twin / "eurosat" / f"split-{split}.txt").read_text().split() for split in ("train", "val", "test")}
    assert [len(lists[split]) for split in ("train", "val", "test")] == [60, 20, 20]
    assert {name for members in lists.values() for name in members} == {
        f"{c}_{n}.jpg" for c in CLASSES for n in range(1, COUNT + 1)
    }


def test_split_lists_depend_on_the_seed_alone() -> None:
    names = [f"Forest_{n}.jpg" for n in range(1, 51)]
    assert split_lists(0, names) == split_lists(0, names) != split_lists(1, names)


def test_the_tifs_have_thirteen_bands_and_a_map_projection(twin: Path) -> None:
    files = sorted((twin / "eurosat_ms" / MS_FOLDER).glob("*/*.tif"))
    assert len(files) == COUNT * len(CLASSES)
    with rasterio.open(files[0]) as source:
        assert (source.count, source.width, source.height, source.dtypes[0]) == (13, 64, 64, "uint16")
        assert source.crs.is_projected
        assert source.res == (10, 10)
        assert np.median(source.read(10)) < 30  # B10, the cirrus band
    with rasterio.open(twin / "eurosat_ms" / MS_FOLDER / "SeaLake" / "SeaLake_1.tif") as source:
        assert np.median(source.read(8)) < 900 < 1000 < np.median(rasterio.open(files[0]).read(8))


@pytest.mark.parametrize(
    ("shares", "label"),
    [
        ({SEALAKE: 256}, SEALAKE),
        ({SEALAKE: 128, FOREST: 128}, None),
        ({FOREST: 250, PASTURE: 6}, FOREST),
        ({PASTURE: 100, FOREST: 100}, None),
    ],
)
def test_a_picture_needs_a_dominant_class(shares: dict[int, int], label: int | None) -> None:
    cover = np.concatenate([np.full(n, code) for code, n in shares.items()])
    assert label_of(np.resize(cover, 256).reshape(16, 16)) == label


def test_lines_through_the_middle_name_the_picture() -> None:
    cover = np.full((16, 16), FOREST)
    cover[:, 8] = HIGHWAY
    assert label_of(cover) == HIGHWAY
    cover[6:9, :] = RIVER
    assert label_of(cover) == RIVER


def test_pictures_of_a_town_do_not_overlap() -> None:
    picks = candidates(0, 0)
    for number, (_, col, row) in enumerate(picks):
        assert all(abs(col - c) >= 64 or abs(row - r) >= 64 for _, c, r in picks[:number])


def test_towns_of_the_twin_are_no_cities_of_a_catalog() -> None:
    from caco_assets.synthetic.earth.region import region

    here = town_region(0, 0)
    assert here.key != region(0, "ES/Figueres", here.lon, here.lat).key
