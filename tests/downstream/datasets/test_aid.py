"""AID read as its authors ship it, whole or as a declared part; its draws; features shared by all of them."""

import json
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.readers.aid import COUNTS, SPLITS, SPLITS_OF_PART, split
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.tasks import find_task
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.synthetic.earth.region import ANNUAL, CLASSES, FOREST, HIGHWAY, RESIDENTIAL, RIVER, SEALAKE
from caco_assets.synthetic.twins.aid import NAMES, candidates, draw_scene, name_of, town_region

SMALL = {"Beach": 6, "Forest": 8}


def picture(side: int = 600, color: int = 90) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (side, side), (color, 2 * color, 30)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def write(tmp_path: Path):
    """Writes `AID.zip` with pictures of the given counts, and `subset.json` beside it unless told not to."""

    def do(counts: dict[str, int] = SMALL, declared: dict[str, int] | None = SMALL, data: bytes | None = None) -> Path:
        folder = tmp_path / "aid"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "AID.zip", "w") as archive:
            for number, (name, count) in enumerate(counts.items()):
                for n in range(1, count + 1):
                    archive.writestr(f"AID/{name}/{name.lower()}_{n}.jpg", data or picture(color=40 + 50 * number))
        if declared is not None:
            (folder / "subset.json").write_text(json.dumps({"counts": declared, "note": "a part for a test"}))
        return folder

    return do


def read(path: Path, task: str = "aid_50"):
    return find_task(task).read(path)


def test_the_whole_set_has_ten_thousand_pictures_in_thirty_classes():
    assert (sum(COUNTS.values()), len(COUNTS)) == (10_000, 30)


def test_half_of_every_class_trains_and_the_rest_is_the_test_part(write):
    data = read(write())
    assert {part: Counter(images.labels.tolist()) for part, images in data.parts.items()} == {
        "train": {0: 2, 1: 3},
        "val": {0: 1, 1: 1},
        "test": {0: 3, 1: 4},
    }
    assert "2 of 30 classes: a part for a test" in data.note
    assert data.classes == ("Beach", "Forest")


def test_a_fifth_and_a_half_are_two_tasks_of_the_same_archive(write):
    folder = write()
    one, other = read(folder, "aid_20"), read(folder, "aid_50")
    assert len(one.parts["test"]) > len(other.parts["test"])
    assert one.version != other.version


def test_the_draws_of_the_published_set_have_the_published_shares():
    labels = {f"{name.lower()}_{n}.jpg": k for k, (name, count) in enumerate(COUNTS.items()) for n in range(1, count + 1)}
    for share, training in ((0.2, 2000), (0.5, 5000)):
        parts = split(labels, share, 0)
        assert len(parts["train"]) + len(parts["val"]) == training
        assert set(parts["train"].names).isdisjoint(parts["test"].names)
        assert sum(len(part) for part in parts.values()) == 10_000


def test_the_draws_differ_and_come_again_with_their_seed(write):
    data = read(write())
    assert (SPLITS, len(data.folds)) == (5, SPLITS_OF_PART)
    drawn = {data.fold(seed).parts["test"].names for seed in range(3)}
    assert len(drawn) == 3
    assert data.fold(5).parts["test"].names == data.fold(2).parts["test"].names
    assert len({data.fold(seed).version for seed in range(3)}) == 3
    assert data.fold(1).note.startswith("split 2 of 3")


def test_a_picture_is_encoded_once_for_all_draws(write, tmp_path):
    data = read(write())
    encoder = Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "eurosat", 32), 0)
    cache = FeatureCache(tmp_path / "cache")
    for seed in range(3):
        fold = data.fold(seed)
        for part in fold.parts:
            found = cache.features(encoder, encoder.identity, fold, part, 32)
            slow = encoder.features(np.stack([data.decode(name) for name in fold.parts[part].names]), data.pixel_format, 32)
            np.testing.assert_allclose(found, slow, atol=1e-5)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


def test_both_tasks_share_what_is_kept_about_the_same_pictures_and_a_part_of_them_has_its_own(write, tmp_path):
    folder = write()
    encoder = Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "eurosat", 32), 0)
    cache = FeatureCache(tmp_path / "cache")

    def kept(data) -> int:
        cache.features(encoder, encoder.identity, data.fold(0), "train", 32)
        return len(list((tmp_path / "cache" / "features").iterdir()))

    assert [kept(read(folder, task)) for task in ("aid_20", "aid_50")] == [1, 1]
    assert kept(read(folder, "aid_20").limited(2, 0)) == 2


def _no_class(folder: Path) -> None:
    rewrite(folder, lambda name: name.replace("Forest/forest", "Forrest/forrest"))


def _capital_name(folder: Path) -> None:
    rewrite(folder, lambda name: name.replace("forest_1.", "Forest_1."))


def _half(folder: Path) -> None:
    rewrite(folder, lambda name: None if name.endswith("forest_8.jpg") else name)


def _undeclared(folder: Path) -> None:
    (folder / "subset.json").unlink()


def _unreadable(folder: Path) -> None:
    (folder / "subset.json").write_text("Beach")


def _other_names(folder: Path) -> None:
    (folder / "subset.json").write_text(json.dumps({"counts": {"Beech": 6}, "note": ""}))


def rewrite(folder: Path, rename) -> None:
    with zipfile.ZipFile(folder / "AID.zip") as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(folder / "AID.zip", "w") as new:
        for name, data in members.items():
            if rename(name) is not None:
                new.writestr(rename(name), data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_no_class, "unknown class folder 'Forrest'; did you mean Forest?"),
        (_capital_name, "is not named forest_<number>.jpg"),
        (_half, "not complete: 13 of 14 images (Forest 7 of 8); fetch the archive again"),
        (_undeclared, "unknown class|no image of Airport"),
        (_unreadable, "subset.json: not readable"),
        (_other_names, "subset.json names Beech; AID's classes are Airport"),
    ],
)
def test_damage_is_said_before_a_pixel_is_decoded(write, damage, says):
    folder = write()
    damage(folder)
    with pytest.raises(UserError, match=says.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_half_extracted_archive_without_a_declaration_is_refused(write):
    folder = write(dict.fromkeys(COUNTS, 1), declared=None, data=picture(32))
    with pytest.raises(UserError, match=r"not complete: 30 of 10000 images \(Airport 1 of 360, BareLand 1 of 310"):
        read(folder)


def test_a_picture_of_another_size_and_a_truncated_one_are_named(write):
    data = read(write(data=picture(64)))
    with pytest.raises(UserError, match=r"beach_1\.jpg is 64×64 RGB; AID has 600×600 RGB"):
        data.decode("beach_1.jpg")
    data = read(write(data=picture()[:900]))
    with pytest.raises(UserError, match=r"beach_1\.jpg is damaged"):
        data.decode("beach_1.jpg")


def test_the_twin_draws_only_classes_that_its_cover_tells(write):
    assert set(NAMES) < set(COUNTS)
    far = np.full((15, 15), 1e6)

    def named(*patches: tuple[slice, slice, int], base: int = ANNUAL, ramp: np.ndarray = far) -> str | None:
        cover = np.full((15, 15), base)
        for rows, columns, code in patches:
            cover[rows, columns] = code
        return name_of(cover, ramp)

    everywhere = slice(None)
    assert named() == "Farmland"
    assert named(base=FOREST) == "Forest"
    assert named((everywhere, slice(0, 7), SEALAKE)) == "Beach"
    assert named((slice(6, 9), slice(6, 9), SEALAKE)) == "Pond"
    assert named((everywhere, slice(7, 9), RIVER)) == "River"
    assert named((everywhere, slice(7, 9), RIVER), (slice(7, 8), everywhere, HIGHWAY)) == "Bridge"
    assert named((slice(7, 8), everywhere, HIGHWAY)) is None
    assert named((slice(7, 8), everywhere, HIGHWAY), ramp=np.zeros((15, 15))) == "Viaduct"
    assert named((everywhere, slice(0, 7), RESIDENTIAL)) == "MediumResidential"
    assert len(CLASSES) == 10


def test_scenes_of_the_twin_are_drawn_alike_every_time_and_do_not_overlap():
    picks = candidates(0, 0)
    assert picks == candidates(0, 0)
    for number, pick in enumerate(picks):
        assert all(abs(pick.col - p.col) >= 60 or abs(pick.row - p.row) >= 60 for p in picks[:number])
    scene = draw_scene(0, 0, picks[0])
    assert scene.shape == (600, 600, 3)
    np.testing.assert_array_equal(scene, draw_scene(0, 0, picks[0]))
    assert town_region(0, 0).key != town_region(0, 1).key
