import hashlib
import json
import re
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.band_check import FEWEST, check_order
from caco_assets.downstream.datasets.completeness import IncompleteError
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.readers import eurosat as eurosat_reader
from caco_assets.downstream.datasets.readers.eurosat_ms import BANDS
from caco_assets.downstream.datasets.splits import list_sha256
from caco_assets.downstream.scoring.score_task import resolve_tasks
from caco_assets.downstream.tasks import TASKS, find_task
from caco_assets.settings import load_settings


def quiet(_line: str) -> None:
    pass


def read(path: Path, task: str = "eurosat"):
    return find_task(task).read(path)


def decode_all(data, cache: Path) -> None:
    for part in data.parts:
        data.pixels(part, cache)


def repack(archive: Path, change) -> None:
    """Rewrite a zip; `change` maps (name, bytes) to the same, or to None to leave the member out."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in members.items():
            changed = change(name, data)
            if changed is not None:
                new.writestr(*changed)


def test_images_are_read_straight_from_the_authors_zip(eurosat, tmp_path):
    data = read(eurosat)
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 60, "val": 20, "test": 20}
    pixels = data.pixels("train", tmp_path / "cache")
    assert pixels.shape == (60, 3, 64, 64)
    assert pixels.dtype == np.uint8
    # the generator paints class 0 green and class 9 red; red comes first
    first, last = pixels[data.parts["train"].labels == 0], pixels[data.parts["train"].labels == 9]
    assert first[:, 1].mean() > 200 > first[:, 0].mean()
    assert last[:, 0].mean() > 200 > last[:, 1].mean()
    assert sorted(path.name for path in eurosat.parent.iterdir()) == sorted(
        ["EuroSAT.zip", "split-test.txt", "split-train.txt", "split-val.txt"]
    )


def test_an_extracted_folder_gives_the_same_pixels_as_the_zip(eurosat, tmp_path):
    folder = tmp_path / "extracted"
    with zipfile.ZipFile(eurosat) as archive:
        archive.extractall(folder)
    for part in ("train", "val", "test"):
        shutil.copy(eurosat.parent / f"split-{part}.txt", folder)
    one, other = read(eurosat), read(folder)
    assert one.parts["val"].names == other.parts["val"].names
    np.testing.assert_array_equal(one.pixels("val", tmp_path / "a"), other.pixels("val", tmp_path / "b"))


def test_the_folder_that_holds_the_zip_may_be_given(eurosat):
    assert read(eurosat.parent).version == read(eurosat).version


def test_every_note_holds_the_sha256_of_the_split_lists(eurosat):
    data = read(eurosat)
    for part in ("train", "val", "test"):
        assert list_sha256(data.parts[part].names) in data.note


def test_the_version_changes_with_a_pixel_and_with_a_list(eurosat):
    before = read(eurosat).version
    lines = (eurosat.parent / "split-test.txt").read_text().splitlines()
    (eurosat.parent / "split-test.txt").write_text("\n".join(lines[:-1]) + "\n")
    assert read(eurosat).version != before
    (eurosat.parent / "split-test.txt").write_text("\n".join(lines) + "\n")
    assert read(eurosat).version == before
    repack(eurosat, lambda name, data: (name, data + b" ") if name.endswith("River_1.jpg") else (name, data))
    assert read(eurosat).version != before


def test_without_lists_the_split_is_stratified_and_always_the_same(eurosat):
    for part in ("train", "val", "test"):
        (eurosat.parent / f"split-{part}.txt").unlink()
    (eurosat.parent / "subset.json").write_text('{"images": 100, "note": "noise"}')
    one, other = read(eurosat), read(eurosat)
    assert one.parts["train"].names == other.parts["train"].names
    assert np.bincount(one.parts["train"].labels).tolist() == [6] * 10
    assert np.bincount(one.parts["test"].labels).tolist() == [2] * 10
    assert "stratified" in one.note
    assert one.note.endswith("; a declared part: 100 of 27000 images: noise")


def test_a_limit_keeps_the_classes_in_proportion_and_is_said(eurosat):
    data = read(eurosat).limited(20, seed=3)
    assert len(data.parts["train"]) == 20
    assert np.bincount(data.parts["train"].labels).tolist() == [2] * 10
    assert "at most 20 images per split (seed 3)" in data.note
    assert data.version != read(eurosat).version
    assert read(eurosat).limited(1000, seed=3).version == read(eurosat).version


def _empty(archive: Path) -> None:
    zipfile.ZipFile(archive, "w").close()


def _unknown_class(archive: Path) -> None:
    repack(archive, lambda name, data: (name.replace("Forest", "Forrest"), data))


def _missing_class(archive: Path) -> None:
    repack(archive, lambda name, data: None if "SeaLake" in name else (name, data))


def _wrong_folder(archive: Path) -> None:
    repack(archive, lambda name, data: (name.replace("River/River_1.", "River/Forest_99."), data))


def _listed_but_missing(archive: Path) -> None:
    repack(archive, lambda name, data: None if name.endswith("/River_2.jpg") else (name, data))


def _in_two_lists(archive: Path) -> None:
    with (archive.parent / "split-test.txt").open("a") as stream:
        stream.write("River_1.jpg\n")


def _empty_list(archive: Path) -> None:
    (archive.parent / "split-val.txt").write_text("\n")


def _no_train_list(archive: Path) -> None:
    (archive.parent / "split-train.txt").unlink()


def _outside(archive: Path) -> None:
    repack(archive, lambda name, data: (name.replace("2750/", "../2750/"), data))


def _no_zip(archive: Path) -> None:
    archive.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_empty, "archive is empty"),
        (_unknown_class, "unknown class folder 'Forrest'; did you mean Forest?"),
        (_missing_class, "no image of SeaLake"),
        (_wrong_folder, "is not named River_<number>.jpg"),
        (_listed_but_missing, "split-train.txt: lists River_2.jpg, which is not in the data"),
        (_in_two_lists, "River_1.jpg, which split-train.txt has too"),
        (_empty_list, "the list is empty"),
        (_no_train_list, "no split-train.txt"),
        (_outside, "points outside the archive"),
        (_no_zip, "not readable as a zip archive"),
    ],
)
def test_damage_is_said_in_one_line_before_any_pixel_is_decoded(eurosat, damage, says):
    damage(eurosat)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        read(eurosat)
    assert "\n" not in str(caught.value)


def test_a_truncated_jpg_is_named(eurosat, tmp_path):
    repack(eurosat, lambda name, data: (name, data[: len(data) // 2]) if name.endswith("/Forest_3.jpg") else (name, data))
    with pytest.raises(UserError, match=r"Forest_3\.jpg is damaged"):
        read(eurosat).pixels("train", tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_an_image_of_another_size_is_named(eurosat, make_jpg, tmp_path):
    small = make_jpg(np.random.default_rng(0), 1, side=32)
    repack(eurosat, lambda name, data: (name, small) if name.endswith("/Forest_3.jpg") else (name, data))
    with pytest.raises(UserError, match=r"Forest_3\.jpg is 32×32 RGB; EuroSAT has 64×64 RGB"):
        read(eurosat).pixels("train", tmp_path)


def test_absent_data_is_told_apart_from_damaged_data(tmp_path):
    with pytest.raises(DataAbsentError, match="there is nothing there"):
        read(tmp_path / "nowhere.zip")


def test_thirteen_bands_come_in_the_order_of_the_files(eurosat_ms, spectrum, tmp_path):
    data = read(eurosat_ms, "eurosat_ms")
    pixels = data.pixels("train", tmp_path / "cache")
    assert pixels.shape == (30, 13, 64, 64)
    assert pixels.dtype == np.uint16
    assert BANDS[-1] == "B8A"
    means = pixels[0].reshape(13, -1).mean(axis=1)
    np.testing.assert_allclose(means, np.array(spectrum) + 1, atol=0.2)


def test_a_tif_with_other_bands_is_named(eurosat_ms, tmp_path):
    file = eurosat_ms / "ds" / "tif" / "River" / "River_1.tif"
    data = read(eurosat_ms, "eurosat_ms")
    tifffile.imwrite(file, np.zeros((64, 64, 4), np.uint16), planarconfig="contig")
    with pytest.raises(UserError, match=r"River_1\.tif is 64×64×4 uint16"):
        decode_all(data, tmp_path)
    with pytest.raises(UserError, match=r"River_1\.tif is 64×64×4 uint16"):
        read(eurosat_ms, "eurosat_ms")


def test_a_truncated_tif_is_named(eurosat_ms, tmp_path):
    file = eurosat_ms / "ds" / "tif" / "River" / "River_1.tif"
    data = read(eurosat_ms, "eurosat_ms")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"River_1\.tif is damaged"):
        decode_all(data, tmp_path)


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(UserError, match="task=eurosatt: there is no such task; did you mean eurosat"):
        find_task("eurosatt")


def test_every_task_of_the_table_has_a_reader_that_says_when_its_data_is_absent(tmp_path):
    for task in TASKS.values():
        with pytest.raises(DataAbsentError):
            task.read(tmp_path / "absent")


def test_the_real_eurosat_subset_is_read_with_its_own_lists(real):
    data = eurosat_reader.read(real / "eurosat_rgb" / "EuroSAT.zip")
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 16_251, "val": 5_369}
    assert set(data.parts["train"].names).isdisjoint(data.parts["val"].names)


def test_the_real_hundred_patches_of_thirteen_bands_are_read(real, tmp_path):
    data = read(real / "eurosat_ms", "eurosat_ms")
    assert data.note.endswith("; a published sample: 100 of 27000 images")
    assert sum(len(part) for part in data.parts.values()) == 100
    reflectance = data.pixels("test", tmp_path).mean(axis=(0, 2, 3)) * data.pixel_format.reflectance_per_dn
    assert 0.02 < reflectance[BANDS.index("B04")] < 0.3
    # the cirrus band sees almost nothing: a check of the order of bands
    assert reflectance.argmin() == BANDS.index("B10")


def test_a_twin_with_two_lists_only_has_no_test_part(make_eurosat, tmp_path):
    assert set(read(make_eurosat(tmp_path / "two", parts=("train", "val"))).parts) == {"train", "val"}


def _without_lists(archive: Path) -> None:
    for file in archive.parent.glob("*.txt"):
        file.unlink()


@pytest.mark.parametrize("per_class", [1, 20])
def test_a_half_extracted_eurosat_is_refused_with_what_is_missing_and_where_to_get_it(make_eurosat, tmp_path, per_class):
    archive = make_eurosat(tmp_path / "half", per_class=per_class)
    _without_lists(archive)
    says = (
        f"not complete: {10 * per_class} of 27000 images (AnnualCrop {per_class} of 3000, Forest {per_class} of 3000, "
        f"HerbaceousVegetation {per_class} of 3000, Highway {per_class} of 2500 and 6 more); fetch the archive again"
    )
    with pytest.raises(IncompleteError, match=re.escape(says)) as caught:
        read(archive)
    assert "declare the part in" in str(caught.value)
    assert "https://github.com/phelber/EuroSAT (also https://zenodo.org/records/7711810" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"images": 99}, "too many images: 100, where 99 belong"),
        ({"images": 101}, "not complete: 100 of 101 images"),
        ({"counts": dict.fromkeys(eurosat_reader.CLASSES, 10) | {"Forest": 11}}, "(Forest 10 of 11)"),
        ({"images": 7, "counts": {"Forest": 8}}, "subset.json: not readable (7 images declared, 8 in its counts)"),
        ({"note": "nothing"}, "subset.json: not readable (0 images declared"),
        ([], "subset.json: not readable"),
    ],
)
def test_what_is_declared_must_be_there_exactly(eurosat, declared, says):
    _without_lists(eurosat)
    (eurosat.parent / "subset.json").write_text(json.dumps(declared))
    with pytest.raises(UserError, match=re.escape(says)):
        read(eurosat)


def test_a_declaration_is_no_data(eurosat):
    before = read(eurosat).version
    (eurosat.parent / "subset.json").write_text('{"images": 100}')
    assert read(eurosat).version == before


def test_the_published_counts_are_those_of_the_paper():
    assert sum(eurosat_reader.COUNTS.values()) == 27_000 == sum(published("eurosat").sizes.values())


def test_thirteen_bands_without_lists_or_declaration_are_the_whole_or_the_known_sample(eurosat_ms):
    (eurosat_ms / "subset.json").unlink()
    with pytest.raises(IncompleteError, match="not complete: 50 of 27000 images"):
        read(eurosat_ms, "eurosat_ms")


def test_published_lists_are_told_by_their_bytes_and_a_mixture_is_refused(eurosat, monkeypatch):
    assert read(eurosat).note.startswith("other split lists (sha256")
    known = published("eurosat").checksums["EuroSAT by longitude"]
    lists = {part: eurosat.parent / f"split-{part}.txt" for part in ("train", "val", "test")}
    for part, file in lists.items():
        monkeypatch.setitem(known, part, f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}")
    assert read(eurosat).note.startswith("published split lists (EuroSAT by longitude) (sha256")
    lists["test"].write_text("".join(lists["test"].read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"split-test\.txt: not the published list of EuroSAT by longitude"):
        read(eurosat)


def test_the_pinned_checksums_are_those_that_torchgeo_pins():
    source = (Path(find_spec("torchgeo").origin).parent / "datasets").glob("*.py")
    text = "".join(file.read_text() for file in source if file.stem in ("eurosat", "bigearthnet"))
    for name in ("eurosat", "bigearthnet", "bigearthnet_v2"):
        for checksums in published(name).checksums.values():
            assert all(checksum.partition(":")[2] in text for checksum in checksums.values())


def _swap(folder: Path, order: list[int], names: str | None = None) -> None:
    for file in folder.rglob("*.tif"):
        pixels = tifffile.imread(file)[..., order]
        tags = [(42112, "s", 0, names, True)] if names else []
        tifffile.imwrite(file, pixels, planarconfig="contig", extratags=tags)


def test_bands_that_are_equal_are_not_swapped():
    check_order(Path(), [np.full((2, 4, 4), 7)] * FEWEST, ("B08", "B04"), (("B08", "B04"),), "a plain field")


@pytest.mark.parametrize(
    ("one", "other"), [("B10", "B09"), ("B8A", "B10"), ("B04", "B08"), ("B02", "B04"), ("B8A", "B09"), ("B11", "B12")]
)
def test_swapped_bands_are_refused_before_compute(eurosat_ms, one, other):
    order = list(range(13))
    order[BANDS.index(one)], order[BANDS.index(other)] = BANDS.index(other), BANDS.index(one)
    _swap(eurosat_ms, order)
    with pytest.raises(UserError, match="bands are swapped; their order is B01, B02"):
        read(eurosat_ms, "eurosat_ms")


def test_the_order_of_other_products_is_told_from_the_dark_band_alone(eurosat_ms):
    # B8A after B08, as in the products of the satellite
    _swap(eurosat_ms, [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11])
    with pytest.raises(UserError, match="is darker than B10"):
        read(eurosat_ms, "eurosat_ms")


def test_a_file_that_names_its_bands_in_another_order_is_refused(eurosat_ms):
    def names(order: tuple[str, ...]) -> str:
        items = "".join(f'<Item name="DESCRIPTION" sample="{n}" role="description">{band}</Item>' for n, band in enumerate(order))
        return f"<GDALMetadata>{items}</GDALMetadata>"

    _swap(eurosat_ms, list(range(13)), names(("B1", *BANDS[1:])))
    read(eurosat_ms, "eurosat_ms")
    _swap(eurosat_ms, list(range(13)), names(tuple(f"band {n}" for n in range(13))))
    read(eurosat_ms, "eurosat_ms")
    _swap(eurosat_ms, list(range(13)), names((*BANDS[:8], "B8A", *BANDS[8:12])))
    with pytest.raises(UserError, match=r"_1\.tif names its bands B01, .*B08, B8A, B09"):
        read(eurosat_ms, "eurosat_ms")


def test_absent_data_is_said_with_page_and_mirrors(tmp_path):
    for name in ("eurosat", "bigearthnet", "oscd", "loveda", "levir_cd"):
        task = find_task(name)
        assert task.mirrors
        row = {"tasks": {"eurosat_twin": {"task": name, "data": str(tmp_path / "nowhere")}}}
        with pytest.raises(UserError, match=re.escape(f"fetch it from {task.page} (also {', '.join(task.mirrors)})")):
            resolve_tasks(load_settings("tiny", home=tmp_path, downstream=row))
