"""Sound data sets in another form: LZW, other names, marked lists, PNGs, and the blended mask of Potsdam."""

import json
import shutil
import zipfile
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.completeness import IncompleteError, check_counts
from caco_assets.downstream.datasets.geolocation import outlines
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.published_splits import published, source_of
from caco_assets.downstream.datasets.readers.eurosat import CLASSES
from caco_assets.downstream.datasets.tiff import read_tiff
from caco_assets.downstream.tasks import find_task

BOM = b"\xef\xbb\xbf"
TRANSFORM = rasterio.transform.from_origin(0, 64, 1, 1)


def tif(path: Path, pixels: np.ndarray, **options) -> None:
    fields = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=TRANSFORM, **fields, **options) as file:
        file.write(pixels)


@pytest.mark.parametrize("compress", ["lzw", "deflate", "packbits", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"predictor": 2},
        {"tiled": True, "blockxsize": 32, "blockysize": 16},
        {"interleave": "band"},
        {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    ],
    ids=["strips", "differences", "tiles", "bands apart", "big"],
)
def test_a_tif_is_read_in_every_lossless_layout_of_the_field(tmp_path: Path, compress: str, options: dict):
    if "predictor" in options and compress in ("packbits", "none"):
        options = {}
    pixels = (np.random.default_rng(0).integers(0, 3000, (13, 50, 70)) // 50 * 50).astype(np.uint16)
    tif(tmp_path / "x.tif", pixels, compress=compress, **options)
    found = read_tiff(tmp_path / "x.tif", "x", advice="").pixels
    assert np.array_equal(found if found.shape == pixels.shape else found.transpose(2, 0, 1), pixels)


@pytest.mark.parametrize("compress", ["lzma", "zstd"])
def test_another_compression_is_named_with_the_way_out(tmp_path: Path, compress: str):
    tif(tmp_path / "x.tif", np.ones((1, 8, 8), np.uint16), compress=compress)
    with pytest.raises(
        UserError, match=rf"compressed with {compress.upper()}, which is not read.*gdal_translate -co COMPRESS=DEFLATE"
    ):
        read_tiff(tmp_path / "x.tif", "x", advice="")


@pytest.fixture
def twin(once, tmp_path: Path):
    """A twin of its own, extracted."""

    def copy(task: str) -> Path:
        made = once(f"field-{task}", lambda folder: import_module(f"caco_assets.synthetic.twins.{task}").write_twin(folder, 0, 10))
        folder = shutil.copytree(made, tmp_path / task)
        for archive in folder.glob("*.zip"):
            with zipfile.ZipFile(archive) as members:
                members.extractall(folder / archive.stem)
            archive.unlink()
        return folder

    return copy


def in_capitals(folder: Path) -> None:
    """Every file and, of the lists, every line in capitals, with a byte order mark and the line ends of Windows."""
    for file in [path for path in folder.rglob("*") if path.is_file() and path.name not in ("subset.json", "metadata.parquet")]:
        if file.suffix in (".txt", ".csv"):
            file.write_bytes(BOM + file.read_bytes().replace(b"\n", b"\r\n").upper())
        file.rename(file.with_name(file.name.upper()))


@pytest.mark.parametrize("task", ["oscd", "levir_cd", "whu_cd", "loveda", "potsdam", "vaihingen", "dynamicearthnet"])
def test_dense_data_are_found_by_names_in_capitals(twin, task: str):
    folder = twin(task)
    sound = find_task(task).read(folder)
    first = sound.scenes["test"][0].name
    pixels = sound.decode(first)
    in_capitals(folder)
    data = find_task(task).read(folder)
    assert {part: len(scenes) for part, scenes in data.scenes.items()} == {
        part: len(scenes) for part, scenes in sound.scenes.items()
    }
    same = next(scene.name for scene in data.scenes["test"] if fold(scene.name) == fold(first))
    for one, other in zip(pixels, data.decode(same), strict=True):
        assert (one == other).all()


def test_bigearthnet_is_found_by_names_in_capitals_and_in_lzw(twin):
    folder = twin("bigearthnet")
    sound = find_task("bigearthnet").read(folder)
    name = sound.parts["train"].names[0]
    image, places = sound.decode(name), outlines("bigearthnet", folder, [name])
    assert places
    for file in (folder / "BigEarthNet-v1.0" / name).glob("*.tif"):
        with rasterio.open(file) as source:
            profile, pixels = source.profile, source.read()
        with rasterio.open(file, "w", **{**profile, "compress": "lzw", "predictor": 2}) as target:
            target.write(pixels)
    in_capitals(folder)
    data = find_task("bigearthnet").read(folder)
    assert {part: each.names for part, each in data.parts.items()} == {part: each.names for part, each in sound.parts.items()}
    assert (data.decode(name) == image).all()
    assert (outlines("bigearthnet", folder, [name])[name] == places[name]).all()


def write_eurosat(folder: Path, suffix: str, data: bytes) -> Path:
    for name in CLASSES:
        (folder / "2750" / name).mkdir(parents=True)
        for number in (1, 2, 3):
            (folder / "2750" / name / f"{name}_{number}{suffix}").write_bytes(data)
    for number, part in enumerate(("train", "val", "test"), 1):
        (folder / f"split-{part}.txt").write_text("".join(f"{name}_{number}.jpg\n" for name in CLASSES))
    return folder


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


GREY = np.full((64, 64, 3), (9, 99, 199), np.uint8)


@pytest.mark.parametrize("suffix", [".JPG", ".jpg"])
@pytest.mark.parametrize("listed", [".JPG", ".jpg", ".tif", ""])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_the_suffix_of_images_and_lists_may_be_in_capitals(tmp_path: Path, suffix: str, listed: str, mark: bytes):
    folder = write_eurosat(tmp_path, suffix, encoded(GREY, "JPEG"))
    for part in ("train", "val", "test"):
        file = folder / f"split-{part}.txt"
        file.write_bytes(mark + file.read_text().replace(".jpg", listed).encode())
    data = find_task("eurosat").read(folder)
    assert [len(data.parts[part]) for part in ("train", "val", "test")] == [10, 10, 10]
    assert data.parts["train"].names[0] == "AnnualCrop_1.jpg"
    assert data.decode("AnnualCrop_1.jpg").shape == (3, 64, 64)


def test_two_images_whose_names_differ_in_capitals_alone_are_refused(tmp_path: Path):
    folder = write_eurosat(tmp_path, ".jpg", encoded(GREY, "JPEG"))
    shutil.copy(folder / "2750" / "River" / "River_1.jpg", folder / "2750" / "River" / "River_1.JPG")
    with pytest.raises(UserError, match=r"River_1\.jpg is there twice"):
        find_task("eurosat").read(folder)


def test_lists_are_not_passed_over_because_their_names_have_capitals(tmp_path: Path):
    folder = write_eurosat(tmp_path, ".jpg", encoded(GREY, "JPEG"))
    for part in ("train", "val", "test"):
        (folder / f"split-{part}.txt").rename(folder / f"Split-{part.title()}.TXT")
    data = find_task("eurosat").read(folder)
    assert len(data.parts["train"]) == 10
    assert "other split lists" in data.note


def test_an_archive_with_a_suffix_in_capitals_is_opened(tmp_path: Path):
    folder = write_eurosat(tmp_path / "made", ".jpg", encoded(GREY, "JPEG"))
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "EUROSAT.ZIP", "w") as archive:
        for file in folder.rglob("*.jpg"):
            archive.write(file, file.relative_to(folder))
    for file in folder.glob("*.txt"):
        shutil.copy(file, tmp_path / "data")
    assert len(find_task("eurosat").read(tmp_path / "data").parts["val"]) == 10


def test_pngs_under_the_names_of_jpegs_are_read(tmp_path: Path):
    data = find_task("eurosat").read(write_eurosat(tmp_path, ".jpg", encoded(GREY, "PNG")))
    assert (data.decode("River_1.jpg") == GREY.transpose(2, 0, 1)).all()


def test_a_published_list_with_a_mark_and_other_line_ends_is_still_published(tmp_path: Path, monkeypatch):
    import hashlib

    facts = published("eurosat")
    lines = {part: f"{part}_1.jpg\n{part}_2.jpg\n".encode() for part in ("train", "val", "test")}
    checksums = {"ours": {part: f"sha256:{hashlib.sha256(text).hexdigest()}" for part, text in lines.items()}}
    monkeypatch.setattr(
        "caco_assets.downstream.datasets.published_splits.published", lambda _: type(facts)(facts.lists, facts.sizes, checksums)
    )
    for part, text in lines.items():
        (tmp_path / part).write_bytes(text if part == "val" else BOM + text.replace(b"\n", b"\r\n"))
    assert source_of("eurosat", {part: tmp_path / part for part in lines}) == "published split lists (ours)"


@pytest.mark.parametrize(
    ("found", "wanted", "says"),
    [
        ({"a": 16}, {"a": 8}, "too many images: 16, where 8 belong; remove the others, or declare"),
        ({"a": 6, "b": 2}, {"a": 4, "b": 4}, r"other counts: 8 of 8 images \(a 6 instead of 4, b 2 of 4\)"),
        ({"a": 3}, {"a": 8}, "not complete: 3 of 8 images"),
    ],
)
def test_counts_are_said_as_they_are(tmp_path: Path, found, wanted, says):
    with pytest.raises(IncompleteError, match=says):
        check_counts(tmp_path, found, wanted)


def blended(folder: Path, name: str = "top_potsdam_4_12_label.tif") -> bytes:
    """Blend the picture of area 4_12 into its mask; returns the sound mask."""
    file = next(folder.rglob(name))
    sound = file.read_bytes()
    mask, picture = tifffile.imread(file), tifffile.imread(next(folder.rglob("top_potsdam_4_12_RGBIR.tif")))
    colors = picture[:3] if picture.shape[0] == 4 else picture[..., :3]
    colors = (
        colors if colors.shape == mask.shape else np.moveaxis(colors, -1, 0) if mask.shape[0] == 3 else np.moveaxis(colors, 0, -1)
    )
    tifffile.imwrite(file, (mask // 2 + colors // 2).astype(np.uint8), photometric="rgb")
    return sound


def test_potsdams_blended_mask_is_replaced_by_the_participants_copy(twin, logged):
    folder = twin("potsdam")
    before = find_task("potsdam").read(folder)
    mask = before.decode("4_12")[1]
    assert "4_12" not in before.note
    sound = blended(folder)
    (folder / "5_Labels_for_participants").mkdir()
    (folder / "5_Labels_for_participants" / "top_potsdam_4_12_label.tif").write_bytes(sound)
    lines = logged()
    data = find_task("potsdam").read(folder)
    assert (data.decode("4_12")[1] == mask).all()
    assert "area 4_12: its published mask has the picture blended in, the copy 5_Labels_for_participants/" in data.note
    assert any("blended in" in line for line in lines)
    assert "train 24" in data.note


def test_potsdams_blended_mask_without_a_sound_copy_leaves_its_area_out_and_says_so(twin):
    folder = twin("potsdam")
    version = find_task("potsdam").read(folder).version
    blended(folder)
    data = find_task("potsdam").read(folder)
    assert "area 4_12 left out: its published mask has the picture blended in, and no sound copy is beside it" in data.note
    assert "train 23, test 14" in data.note
    assert "4_12" not in {scene.name for scene in data.scenes["train"]}
    assert data.version.endswith("/without-4_12")
    assert "/without" not in version


def test_another_faulty_mask_still_stops_the_task(twin):
    folder = twin("potsdam")
    file = next(folder.rglob("top_potsdam_2_10_label.tif"))
    mask = tifffile.imread(file)
    tifffile.imwrite(file, mask // 2 + 30, photometric="rgb")
    with pytest.raises(UserError, match=r"2_10_label\.tif has the colour"):
        find_task("potsdam").read(folder).decode("2_10")


def test_a_declaration_in_another_encoding_is_read(tmp_path: Path):
    from caco_assets.downstream.datasets.completeness import read_subset

    (tmp_path / "subset.json").write_bytes(json.dumps({"images": 3, "note": "Föhr"}, ensure_ascii=False).encode("utf-16"))
    assert read_subset(tmp_path).note == "Föhr"
