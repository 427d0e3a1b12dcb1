"""Readers of change and segmentation data, on tiny twins in their authors' layouts."""

import json
import shutil
import zipfile
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.completeness import IncompleteError
from caco_assets.downstream.datasets.image_decoding import IGNORE, side_of
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.readers.isprs import COLORS, POTSDAM, VAIHINGEN
from caco_assets.downstream.datasets.tiles import Scene, cut, grid
from caco_assets.downstream.tasks import TASKS, find_task
from caco_assets.synthetic.twins.oscd import TEST, TRAIN

DENSE = tuple(name for name, task in TASKS.items() if task.dense)


@pytest.fixture(scope="session")
def dense_twins(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    for name in DENSE:
        import_module(f"caco_assets.synthetic.twins.{name}").write_twin(folder / name, 0, 12)
    return folder


@pytest.fixture
def copy_of(dense_twins, tmp_path):
    def copy(task: str) -> Path:
        return shutil.copytree(dense_twins / task, tmp_path / task)

    return copy


def unpacked(folder: Path) -> Path:
    """The same folder with its archives extracted and gone."""
    for archive in folder.glob("*.zip"):
        with zipfile.ZipFile(archive) as members:
            # LEVIR-CD's archives hold A, B and label each: a folder for each archive
            members.extractall(folder / archive.stem if archive.stem in ("train", "val", "test") else folder)
        archive.unlink()
    return folder


def png(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_seven_tasks_have_a_class_for_each_pixel():
    assert set(DENSE) == {"oscd", "dynamicearthnet", "levir_cd", "whu_cd", "loveda", "potsdam", "vaihingen"}


@pytest.mark.parametrize("task", DENSE)
def test_a_twin_is_read_in_its_authors_layout_and_every_pixel_counts_once(dense_twins, task, tmp_path):
    data = find_task(task).read(dense_twins / task).tiled(64)
    assert {"train", "test"} <= set(data.parts)
    for part in data.parts:
        images, masks = data.arrays(part, tmp_path)
        assert images.shape == (len(data.parts[part]), data.dates, len(data.pixel_format.bands), data.tile, data.tile)
        assert images.dtype == data.dtype
        assert set(np.unique(masks)) - {IGNORE} <= set(range(len(data.classes)))
        truth = [data.decode(scene.name)[1] for scene in data.scenes[part]]
        assert np.count_nonzero(masks != IGNORE) == sum(np.count_nonzero(mask != IGNORE) for mask in truth)
        for number in data.scored:
            assert np.count_nonzero(masks == number) == sum(np.count_nonzero(mask == number) for mask in truth)
    assert not {tile.group for tile in data.parts["train"]} & {tile.group for tile in data.parts["test"]}


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70), (40, 90), (33, 31), (130, 64)])
def test_tiles_cover_a_scene_of_any_size_without_loss_or_double_counting(height, width):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (2, 3, height, width), dtype=np.uint8), np.arange(height * width).reshape(height, width)
    mask = (mask % 250).astype(np.uint8)
    seen = np.zeros((height, width), int)
    for tile in grid(Scene("s", height, width), 64):
        pixels, truth = cut(image, mask, tile, 64)
        assert pixels.shape == (2, 3, 64, 64)
        rows, cols = np.nonzero(truth != IGNORE)
        seen[tile.row + rows, tile.col + cols] += 1
        inside = truth[: height - tile.row, : width - tile.col]
        whole = mask[tile.row : tile.row + 64, tile.col : tile.col + 64]
        assert ((inside == whole) | (inside == IGNORE)).all()
        assert (pixels[..., : whole.shape[0], : whole.shape[1]] == image[..., tile.row :, tile.col :][..., :64, :64]).all()
    assert (seen == 1).all()


def test_a_tile_is_never_larger_than_the_smallest_scene(dense_twins):
    data = find_task("potsdam").read(dense_twins / "potsdam")
    assert data.tiled(256).tile == 64
    assert data.tiled(32).tile == 32


def test_a_zip_and_its_extracted_folder_give_the_same_pixels(dense_twins, copy_of):
    for task in ("oscd", "loveda", "vaihingen"):
        packed = find_task(task).read(dense_twins / task)
        folder = find_task(task).read(unpacked(copy_of(task)))
        assert packed.scenes == folder.scenes
        name = packed.scenes["test"][0].name
        for one, other in zip(packed.decode(name), folder.decode(name), strict=True):
            assert (one == other).all()


def test_a_limit_is_a_seeded_choice_of_tiles_and_says_so(dense_twins):
    data = find_task("potsdam").read(dense_twins / "potsdam").tiled(32)
    few = data.limited(5, 0)
    assert all(len(part) == 5 for part in few.parts.values())
    assert few.parts == data.limited(5, 0).parts != data.limited(5, 1).parts
    assert "at most 5 tiles" in few.note
    assert few.version != data.version


def test_validation_is_cut_from_whole_training_images_where_the_authors_have_none(dense_twins):
    data = find_task("potsdam").read(dense_twins / "potsdam").tiled(32).validated(0.2, 0)
    groups = {part: {tile.group for tile in tiles} for part, tiles in data.parts.items()}
    assert len(groups["val"]) == 5
    assert not groups["val"] & groups["train"]
    assert "5 of 24 training images" in data.note
    levir = find_task("levir_cd").read(dense_twins / "levir_cd").tiled(32)
    assert levir.validated(0.2, 0).parts == levir.parts
    mosaic = find_task("whu_cd").read(dense_twins / "whu_cd").tiled(32)
    assert "training tiles" in mosaic.validated(0.2, 0).note


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_size_of_a_tif_is_read_from_its_header_alone(tmp_path, big, order):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((30, 41, 3), np.uint8), bigtiff=big, byteorder=order, photometric="rgb")
    assert side_of(open_archives(tmp_path), "x.tif") == (30, 41)
    (tmp_path / "x.tif").write_bytes(b"II*\0no tif at all")
    with pytest.raises(UserError, match=r"x\.tif is damaged"):
        side_of(open_archives(tmp_path), "x.tif")


def test_the_published_areas_of_isprs():
    assert [len(POTSDAM.areas[part]) for part in ("train", "test")] == [24, 14]
    assert [len(VAIHINGEN.areas[part]) for part in ("train", "test")] == [16, 17]


def test_both_splits_of_whu_are_told_apart_by_layout_and_named(dense_twins, tmp_path):
    assert "split `authors`" in find_task("whu_cd").read(dense_twins / "whu_cd").note
    rng = np.random.default_rng(0)
    for number in range(10):
        for folder in ("A", "B", "label"):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            mask = np.where(pixels[..., 0] > 128, 255, 0).astype(np.uint8)
            (tmp_path / folder / f"{number}.png").write_bytes(png(mask if folder == "label" else pixels))
    with pytest.raises(IncompleteError, match="not complete: 10 of 7620 images"):
        find_task("whu_cd").read(tmp_path)
    (tmp_path / "subset.json").write_text('{"images": 10, "note": "noise"}')
    seeded = find_task("whu_cd").read(tmp_path)
    assert "a declared part: 10 of 7620 images: noise" in seeded.note
    (tmp_path / "subset.json").unlink()
    assert "seeded 80/10/10" in seeded.note
    assert [len(seeded.scenes[part]) for part in ("train", "val", "test")] == [8, 1, 1]
    (tmp_path / "list").mkdir()
    for part, names in {"train": range(6), "val": (6, 7), "test": (8, 9)}.items():
        (tmp_path / "list" / f"{part}.txt").write_text("".join(f"{number}.png\n" for number in names))
    listed = find_task("whu_cd").read(tmp_path)
    assert "other lists beside the tiles" in listed.note
    assert listed.version != seeded.version
    (tmp_path / "list" / "test.txt").write_text("8.png\n99.png\n")
    with pytest.raises(UserError, match=r"list/test\.txt names 99\.png"):
        find_task("whu_cd").read(tmp_path)
    (tmp_path / "list" / "test.txt").write_text("0.png\n")
    with pytest.raises(UserError, match="in two of the lists"):
        find_task("whu_cd").read(tmp_path)


@pytest.mark.parametrize(
    ("task", "archive", "says"),
    [
        ("levir_cd", "train.zip", r"not complete: 9 of 637 images \(train 4 of 445, val 2 of 64, test 3 of 128\)"),
        ("loveda", "Val.zip", r"not complete: 8 of 4191 images \(Train 4 of 2522, Val 4 of 1669\)"),
    ],
)
def test_fewer_images_than_published_or_declared_are_refused_before_compute(copy_of, task, archive, says):
    folder = copy_of(task)
    whole = find_task(task).read(folder)
    assert f"a declared part: {sum(map(len, whole.scenes.values()))} of" in whole.note
    (folder / "subset.json").unlink()
    with pytest.raises(IncompleteError, match=says) as caught:
        find_task(task).read(folder)
    assert f"the data set is at {find_task(task).page} (also https://" in str(caught.value)
    shutil.copyfile(folder / archive, folder / "other")
    with zipfile.ZipFile(folder / "other") as old, zipfile.ZipFile(folder / archive, "w") as new:
        first = Path(old.namelist()[0]).name
        for name in old.namelist():
            if Path(name).name != first:
                new.writestr(name, old.read(name))
    (folder / "other").unlink()
    counts = {"levir_cd": {"train": 4, "val": 2, "test": 3}, "loveda": {"Train": 4, "Val": 4}}[task]
    (folder / "subset.json").write_text(json.dumps({"counts": counts}))
    with pytest.raises(IncompleteError, match=rf"\({Path(archive).stem} 3 of 4\)"):
        find_task(task).read(folder)


def test_a_declaration_beside_archives_is_no_data(copy_of):
    folder = copy_of("levir_cd")
    before = find_task("levir_cd").read(folder).version
    fields = json.loads((folder / "subset.json").read_text())
    (folder / "subset.json").write_text(json.dumps(fields | {"note": "another"}))
    assert find_task("levir_cd").read(folder).version == before


def test_the_cities_of_oscd_are_known_and_other_lists_are_called_so(copy_of):
    assert [len(published("oscd").lists[part]) for part in ("train", "test")] == [14, 10]
    assert published("oscd").lists == {"train": TRAIN, "test": TEST}
    folder = unpacked(copy_of("oscd"))
    assert find_task("oscd").read(folder).note.startswith("other lists of cities")
    images = folder / "Onera Satellite Change Detection dataset - Images"
    for part in ("train", "test"):
        (images / f"{part}.txt").unlink()
    # the published ones serve, and name cities that the small twin does not have
    with pytest.raises(UserError, match=r"train\.txt names \w+, whose imgs_1_rect lacks B01"):
        find_task("oscd").read(folder)


def test_published_sizes_add_up():
    assert sum(published("levir_cd").sizes.values()) == 637
    assert sum(published("whu_cd").sizes.values()) == 7620
    assert sum(published("loveda").sizes.values()) + 1796 == 5987


@pytest.mark.parametrize("task", DENSE)
def test_absent_and_empty_data_are_told_apart(task, tmp_path):
    with pytest.raises(DataAbsentError, match="there is nothing there"):
        find_task(task).read(tmp_path / "nowhere")
    (tmp_path / "readme.md").write_text("empty")
    with pytest.raises(UserError):
        find_task(task).read(tmp_path)


def test_a_half_extracted_oscd_is_refused_with_the_city_and_its_bands(copy_of):
    folder = unpacked(copy_of("oscd"))
    images = folder / "Onera Satellite Change Detection dataset - Images"
    city = (images / "train.txt").read_text().split(",")[0]
    (images / city / "imgs_2_rect" / "B8A.tif").unlink()
    with pytest.raises(UserError, match=f"{city}, whose imgs_2_rect lacks B8A"):
        find_task("oscd").read(folder)


def test_oscd_without_the_labels_of_its_test_cities_is_refused(copy_of):
    folder = copy_of("oscd")
    (folder / "Onera Satellite Change Detection dataset - Test Labels.zip").unlink()
    with pytest.raises(UserError, match=r"has no cm/cm\.png; put the zips of the labels there"):
        find_task("oscd").read(folder)


def test_a_band_of_another_size_stops_the_decoding(copy_of):
    folder = unpacked(copy_of("oscd"))
    images = folder / "Onera Satellite Change Detection dataset - Images"
    city = (images / "train.txt").read_text().split(",")[0]
    tifffile.imwrite(images / city / "imgs_1_rect" / "B05.tif", np.zeros((20, 20), np.uint16))
    data = find_task("oscd").read(folder)
    with pytest.raises(UserError, match=r"B05\.tif is 20×20 uint16"):
        data.decode(city)


def test_pictures_and_masks_of_other_sizes_are_refused_before_anything_is_decoded(copy_of):
    folder = unpacked(copy_of("levir_cd"))
    image = next((folder / "train" / "B").glob("*.png"))
    image.write_bytes(png(np.zeros((32, 32, 3), np.uint8)))
    with pytest.raises(UserError, match=r"train/B/.*\(32, 32\) rows and columns"):
        find_task("levir_cd").read(folder)
    image.unlink()
    with pytest.raises(UserError, match="has no file in B/"):
        find_task("levir_cd").read(folder)


def test_an_unknown_value_in_a_mask_is_refused_with_the_file(copy_of):
    folder = unpacked(copy_of("loveda"))
    mask = next((folder / "Train" / "Urban" / "masks_png").glob("*.png"))
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[3, 3] = 9
    mask.write_bytes(png(pixels))
    data = find_task("loveda").read(folder)
    with pytest.raises(UserError, match=rf"{mask.name} has the value 9, the classes are 0, 1, 2"):
        data.decode(f"Train/Urban/{mask.stem}")


def test_a_change_mask_is_black_and_white(copy_of):
    folder = unpacked(copy_of("levir_cd"))
    mask = next((folder / "test" / "label").glob("*.png"))
    mask.write_bytes(png(np.full((128, 128), 7, np.uint8)))
    with pytest.raises(UserError, match="has the value 7, the classes are 0, 1, 255"):
        find_task("levir_cd").read(folder).decode(f"test/{mask.stem}")


def test_colours_of_isprs_that_no_class_has_are_refused_and_slightly_wrong_ones_are_not(copy_of):
    folder = unpacked(copy_of("potsdam"))
    mask = folder / "top_potsdam_2_10_label.tif"
    colors = tifffile.imread(mask)
    colors[0, 0], colors[0, 1] = (252, 255, 0), (255, 0, 4)
    tifffile.imwrite(mask, colors)
    data = find_task("potsdam").read(folder)
    classes = data.decode("2_10")[1]
    assert classes[0, :2].tolist() == [4, 5]
    assert set(COLORS.values()) == {*range(6), IGNORE}
    colors[5, 6] = (255, 0, 255)
    tifffile.imwrite(mask, colors)
    with pytest.raises(UserError, match=r"has the colour \(255, 0, 255\) at row 5, column 6"):
        find_task("potsdam").read(folder).decode("2_10")


def test_a_missing_area_of_isprs_is_named(copy_of):
    folder = unpacked(copy_of("vaihingen"))
    (folder / "top" / "top_mosaic_09cm_area5.tif").unlink()
    with pytest.raises(UserError, match="no picture of area 5"):
        find_task("vaihingen").read(folder)


def test_a_picture_with_too_few_bands_is_refused(copy_of):
    folder = unpacked(copy_of("potsdam"))
    picture = folder / "4_Ortho_RGBIR" / "top_potsdam_2_10_RGBIR.tif"
    tifffile.imwrite(picture, tifffile.imread(picture)[..., :3])
    with pytest.raises(UserError, match="is 3×64×64 uint8; 4×64×64 uint8 belongs there"):
        find_task("potsdam").read(folder).decode("2_10")


def test_a_list_of_dynamicearthnet_that_names_a_missing_file_is_refused(copy_of):
    folder = copy_of("dynamicearthnet")
    lists = folder / "dynnet_training_splits"
    (folder / "readme").write_text("x")
    text = (lists / "test.txt").read_text()
    (lists / "test.txt").write_text(text + text.splitlines()[0].replace("2018-01", "2017-01") + "\n")
    with pytest.raises(UserError, match=r"test\.txt names planet/.*2017-01-01\.tif, which is not there"):
        find_task("dynamicearthnet").read(folder)
    (lists / "test.txt").write_text("what is this\n")
    with pytest.raises(UserError, match="has the line 'what is this'"):
        find_task("dynamicearthnet").read(folder)
    (lists / "test.txt").write_text((lists / "train.txt").read_text())
    with pytest.raises(UserError, match=r"is in train\.txt and in test\.txt"):
        find_task("dynamicearthnet").read(folder)


def test_snow_and_unlabelled_pixels_of_dynamicearthnet_do_not_count(copy_of):
    folder = copy_of("dynamicearthnet")
    data = find_task("dynamicearthnet").read(folder)
    name = data.scenes["train"][0].name
    label = next(folder.glob(f"labels/{name.split('/')[0]}*/**/*-{name.split('/')[1]}-01.tif"))
    onehot = tifffile.imread(label)
    onehot[0, 0], onehot[0, 1] = 0, [0, 0, 0, 0, 0, 0, 255]
    tifffile.imwrite(label, onehot, planarconfig="contig")
    assert data.decode(name)[1][0, :2].tolist() == [IGNORE, IGNORE]
    onehot[1, 1, 2] = 8
    tifffile.imwrite(label, onehot, planarconfig="contig")
    with pytest.raises(UserError, match="has the value 8"):
        data.decode(name)


def test_a_damaged_archive_and_a_damaged_picture_are_named(copy_of):
    folder = copy_of("loveda")
    (folder / "Train.zip").write_bytes((folder / "Train.zip").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"Train\.zip: not readable as a zip"):
        find_task("loveda").read(folder)
    folder = unpacked(copy_of("levir_cd"))
    image = next((folder / "val" / "A").glob("*.png"))
    image.write_bytes(image.read_bytes()[:2000])
    with pytest.raises(UserError, match=rf"{image.name} is damaged"):
        find_task("levir_cd").read(folder).decode(f"val/{image.stem}")
