"""BigEarthNet read as its authors ship it: real patches, and the embedded twins of both versions."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import tifffile

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.readers.bigearthnet_labels import CLASSES, GROUPS, of_43
from caco_assets.downstream.datasets.readers.bigearthnet_pixels import BANDS
from caco_assets.downstream.tasks import find_task
from caco_assets.synthetic.twins import bigearthnet, bigearthnet_v2
from caco_assets.synthetic.twins.bigearthnet_scenes import GROUPS as TWIN_GROUPS
from caco_assets.synthetic.twins.bigearthnet_scenes import NAMES as TWIN_NAMES

COUNT = 10


def quiet(_line: str) -> None:
    pass


def read(path: Path, task: str = "bigearthnet"):
    return find_task(task).read(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ben") / "bigearthnet"
    bigearthnet.write_twin(folder, 0, COUNT)
    return folder


@pytest.fixture(scope="module")
def drawn_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ben") / "bigearthnet_v2"
    bigearthnet_v2.write_twin(folder, 0, COUNT)
    return folder


@pytest.fixture
def sample(real: Path, tmp_path: Path) -> Path:
    """The three real patches, linked into a folder that declares them."""
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "BigEarthNet-v1.0").symlink_to(real / "bigearthnet", target_is_directory=True)
    (folder / "subset.json").write_text('{"images": 3, "note": "three patches"}')
    return folder


@pytest.fixture
def twin(drawn: Path, tmp_path: Path) -> Path:
    """A copy of its own for a test that breaks it."""
    return shutil.copytree(drawn, tmp_path / "bigearthnet")


def patch_of(twin: Path, part: str = "train") -> Path:
    return twin / "BigEarthNet-v1.0" / (twin / f"{part}.csv").read_text().split()[0]


def test_forty_three_labels_fall_into_nineteen_classes_or_none():
    assert (len(GROUPS), len(CLASSES)) == (43, 19)
    assert {group for group in GROUPS.values() if group} == set(CLASSES)
    assert sum(group is None for group in GROUPS.values()) == 11


def test_the_real_patches_are_read_with_their_labels_and_numbers(real, sample):
    data = read(sample)
    assert "a declared part: 3 of 590326 images: three patches" in data.note
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 1, "val": 1, "test": 1}
    by_name = {name: part.labels[i] for part in data.parts.values() for i, name in enumerate(part.names)}
    one = "S2A_MSIL2A_20170617T113321_36_85"
    known = {name: sorted(np.array(CLASSES)[row.astype(bool)]) for name, row in by_name.items()}
    assert known[one] == ["Arable land", "Pastures"]
    pixels = data.decode(one)
    assert pixels.shape == (12, 120, 120)
    for band in ("B02", "B08"):
        with rasterio.open(real / "bigearthnet" / one / f"{one}_{band}.tif") as source:
            np.testing.assert_array_equal(pixels[BANDS.index(band)], source.read(1))
    reflectance = pixels.mean(axis=(1, 2)) * data.pixel_format.reflectance_per_dn
    assert reflectance[BANDS.index("B08")] > 3 * reflectance[BANDS.index("B04")]


def test_coarse_bands_are_interpolated_as_rasterio_does(real, sample):
    from rasterio.enums import Resampling

    data = read(sample)
    for part in data.parts.values():
        (name,) = part.names
        pixels = data.decode(name)
        for band in ("B01", "B05", "B8A", "B12"):
            with rasterio.open(real / "bigearthnet" / name / f"{name}_{band}.tif") as source:
                theirs = source.read(1, out_shape=(120, 120), out_dtype="int32", resampling=Resampling.bilinear)
            # a digital number is a ten thousandth of reflectance; one is rounding
            assert np.abs(theirs - pixels[BANDS.index(band)]).max() <= 1


def test_wanted_bands_alone_are_read_in_the_wanted_order(sample):
    data = read(sample)
    colors = data.for_bands(("B04", "B03", "B02"))
    name = data.parts["train"].names[0]
    assert colors.shape == (3, 120, 120)
    assert colors.pixel_format.bands == ("B04", "B03", "B02")
    np.testing.assert_array_equal(colors.decode(name), data.decode(name)[[3, 2, 1]])


def test_patches_without_lists_are_the_whole_data_set_or_a_declared_part(twin):
    for part in ("train", "val", "test"):
        (twin / f"{part}.csv").unlink()
    with pytest.raises(
        UserError, match=r"not complete: 20 of 590326 images; .* or declare .*zenodo\.org/records/12687186"
    ) as caught:
        read(twin)
    assert "\n" not in str(caught.value)
    (twin / "subset.json").write_text('{"images": 21}')
    with pytest.raises(UserError, match="not complete: 20 of 21 images"):
        read(twin)
    (twin / "subset.json").write_text('{"images": 20, "note": "a twin"}')
    assert "a declared part: 20 of 590326 images: a twin" in read(twin).note


def test_lists_of_other_people_are_called_so_and_a_mixture_with_published_ones_is_refused(twin, monkeypatch):
    assert read(twin).note.startswith("other split lists (sha256")
    ours = {part: f"md5:{hashlib.md5((twin / f'{part}.csv').read_bytes()).hexdigest()}" for part in ("train", "val", "test")}
    monkeypatch.setitem(published("bigearthnet").checksums["BigEarthNet"], "train", ours["train"])
    with pytest.raises(UserError, match=r"val\.csv: not the published list of BigEarthNet .* but train\.csv beside it is"):
        read(twin)
    for part, checksum in ours.items():
        monkeypatch.setitem(published("bigearthnet").checksums["BigEarthNet"], part, checksum)
    assert read(twin).note.startswith("published split lists (BigEarthNet) (sha256")


@pytest.mark.parametrize(("one", "other"), [("B04", "B08"), ("B02", "B03"), ("B05", "B8A"), ("B11", "B12"), ("B01", "B09")])
def test_bands_of_one_size_that_are_swapped_everywhere_are_refused_before_compute(twin, one, other):
    for patch in (twin / "BigEarthNet-v1.0").iterdir():
        files = [patch / f"{patch.name}_{band}.tif" for band in (one, other)]
        files[0].rename(patch / "aside")
        files[1].rename(files[0])
        (patch / "aside").rename(files[1])
    with pytest.raises(UserError, match="bands are swapped"):
        read(twin)


def test_the_twins_labels_are_its_true_cover(drawn):
    data = read(drawn)
    names = [line for part in ("train", "val", "test") for line in (drawn / f"{part}.csv").read_text().split()]
    assert sum(len(part) for part in data.parts.values()) == len(names)
    assert set(TWIN_NAMES.values()) <= set(GROUPS)
    assert {GROUPS[TWIN_NAMES[code]] for code in TWIN_GROUPS} == set(TWIN_GROUPS.values())
    assert GROUPS[TWIN_NAMES[122]] is None
    for part in data.parts.values():
        for name, row in zip(part.names, part.labels, strict=True):
            stored = json.loads((drawn / "BigEarthNet-v1.0" / name / f"{name}_labels_metadata.json").read_text())
            np.testing.assert_array_equal(row, of_43(stored["labels"], name))
    assert "patches_with_cloud_and_shadow.csv dropped" in data.note


def test_patches_on_the_lists_of_snow_and_cloud_are_dropped(twin):
    before = read(twin)
    name = before.parts["train"].names[0]
    (twin / "patches_with_seasonal_snow.csv").write_text(f"{name}\n")
    after = read(twin)
    assert len(after.parts["train"]) == len(before.parts["train"]) - 1
    assert name not in after.parts["train"].names
    assert after.version != before.version


def test_a_pixel_changes_the_version(twin):
    before = read(twin).version
    file = next(patch_of(twin).glob("*_B02.tif"))
    file.write_bytes(file.read_bytes()[:-2] + b"\x01\x02")
    assert read(twin).version != before


def test_torchgeos_and_secos_names_of_the_lists_are_read(twin):
    before = read(twin)
    for part in ("train", "val", "test"):
        lines = [f"{name},S1A_{name}" for name in (twin / f"{part}.csv").read_text().split()]
        (twin / f"{part}.csv").unlink()
        (twin / f"bigearthnet-{part}.csv").write_text("\n".join(lines) + "\n")
    assert read(twin).parts["test"].names == before.parts["test"].names


def _listed_but_missing(twin: Path) -> None:
    shutil.rmtree(patch_of(twin))


def _in_two_lists(twin: Path) -> None:
    with (twin / "test.csv").open("a") as stream:
        stream.write(f"{patch_of(twin).name}\n")


def _no_val(twin: Path) -> None:
    (twin / "val.csv").unlink()


def _missing_band(twin: Path) -> None:
    next(patch_of(twin).glob("*_B8A.tif")).unlink()


def _no_labels(twin: Path) -> None:
    next(patch_of(twin).glob("*.json")).unlink()


def _unknown_label(twin: Path) -> None:
    next(patch_of(twin).glob("*.json")).write_text('{"labels": ["Moon"]}')


def _not_extracted(twin: Path) -> None:
    shutil.rmtree(twin)
    twin.mkdir()
    (twin / "BigEarthNet-S2-v1.0.tar.gz").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_listed_but_missing, r"train\.csv: lists \S+, which is not in"),
        (_in_two_lists, r"test\.csv: lists \S+, which train\.csv has too"),
        (_no_val, "no list of the part val"),
        (_missing_band, "B8A missing; extract the archive again"),
        (_no_labels, r"labels_metadata\.json: there is no such file"),
        (_unknown_label, "label 'Moon' is none of BigEarthNet's 43"),
        (_not_extracted, "is not extracted yet; run tar xzf"),
    ],
)
def test_damage_is_said_before_a_pixel_is_decoded(twin, damage, says):
    damage(twin)
    with pytest.raises(UserError, match=says) as caught:
        read(twin)
    assert "\n" not in str(caught.value)


def test_swapped_bands_and_a_truncated_band_are_named(twin):
    folder = patch_of(twin)
    b02, b05 = (next(folder.glob(f"*_{band}.tif")) for band in ("B02", "B05"))
    data, fine, coarse = read(twin), b02.read_bytes(), b05.read_bytes()
    b02.write_bytes(coarse)
    with pytest.raises(UserError, match=r"_B02\.tif: 60×60 uint16; this band of BigEarthNet is 120×120 uint16"):
        data.decode(folder.name)
    b02.write_bytes(fine[:200])
    with pytest.raises(UserError, match=r"_B02\.tif is damaged"):
        data.decode(folder.name)


def test_absent_data_is_told_apart_from_damaged_data(tmp_path):
    for task in ("bigearthnet", "bigearthnet_v2"):
        with pytest.raises(DataAbsentError):
            read(tmp_path / "nowhere", task)


def test_the_second_version_is_read_by_its_metadata(drawn_v2):
    data = read(drawn_v2, "bigearthnet_v2")
    table = pq.read_table(drawn_v2 / "metadata.parquet").to_pylist()
    assert sum(len(part) for part in data.parts.values()) == len(table)
    name = data.parts["train"].names[0]
    row = next(row for row in table if row["patch_id"] == name)
    assert row["split"] == "train"
    assert [CLASSES[k] for k in np.flatnonzero(data.parts["train"].labels[0])] == sorted(row["labels"], key=CLASSES.index)
    assert data.decode(name).shape == (12, 120, 120)
    # towns are in one part only
    tiles = [{name.rsplit("_", 2)[0] for name in part.names} for part in data.parts.values()]
    assert sum(len(part) for part in tiles) == len(set.union(*tiles))


def test_the_twins_second_version_labels_follow_from_its_reference_maps(drawn_v2):
    table = pq.read_table(drawn_v2 / "metadata.parquet").to_pylist()
    for row in table:
        tile = row["patch_id"].rsplit("_", 2)[0]
        file = drawn_v2 / "Reference_Maps" / tile / row["patch_id"] / f"{row['patch_id']}_reference_map.tif"
        codes, counts = np.unique(tifffile.imread(file), return_counts=True)
        present = {TWIN_GROUPS.get(int(code)) for code, count in zip(codes, counts, strict=True) if count >= 0.05 * 120 * 120}
        assert sorted(present - {None}) == row["labels"]


def test_damage_of_the_second_version_is_said(drawn_v2, tmp_path):
    copy = shutil.copytree(drawn_v2, tmp_path / "copy")
    patch = pq.read_table(copy / "metadata.parquet").to_pylist()[0]["patch_id"]
    shutil.rmtree(copy / "BigEarthNet-S2" / patch.rsplit("_", 2)[0] / patch)
    with pytest.raises(UserError, match=f"lists {patch}, which is not there"):
        read(copy, "bigearthnet_v2")
    (copy / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"metadata\.parquet: not readable"):
        read(copy, "bigearthnet_v2")
    (copy / "metadata.parquet").unlink()
    with pytest.raises(UserError, match=r"metadata\.parquet is missing"):
        read(copy, "bigearthnet_v2")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_torchgeo_reads_the_same_pixels_and_labels_from_the_twin(drawn_v2):
    from torchgeo.datasets import BigEarthNetV2

    ours = read(drawn_v2, "bigearthnet_v2")
    # its check wants the Sentinel-1 half too
    (drawn_v2 / "BigEarthNet-S1").mkdir(exist_ok=True)
    theirs = BigEarthNetV2(str(drawn_v2), split="test", bands="s2", download=False)
    found = {row["patch_id"]: k for k, row in theirs.metadata_df.iterrows()}
    for name, labels in zip(ours.parts["test"].names, ours.parts["test"].labels, strict=True):
        sample = theirs[found[name]]
        np.testing.assert_array_equal(sample["label"].numpy(), labels)
        assert np.abs(sample["image_s2" if "image_s2" in sample else "image"].numpy() - ours.decode(name)).max() <= 1
