"""What our readers give is what torchgeo's classes give on the same files."""

import warnings
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.readers.isprs import CLASSES
from caco_assets.downstream.tasks import find_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchgeo.datasets
    return torchgeo.datasets


def twin(task: str, folder: Path) -> Path:
    import_module(f"caco_assets.synthetic.twins.{task}").write_twin(folder, 0, 12)
    for archive in folder.glob("*.zip"):
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)
        archive.unlink()
    return folder


def compared(data, name, sample, masks) -> None:
    images, mask = data.decode(name)
    assert (sample["image"].numpy().reshape(images.shape) == images).all()
    assert (masks == mask).all()


def test_oscd(peers, tmp_path):
    folder = twin("oscd", tmp_path)
    data = find_task("oscd").read(folder)
    for part in ("train", "test"):
        theirs = peers.OSCD(str(folder), part)
        assert len(theirs) == len(data.scenes[part])
        for number, files in enumerate(theirs.files):
            sample = theirs[number]
            compared(data, files["region"], sample, sample["mask"].numpy()[0])


def test_levir_cd(peers, tmp_path):
    folder = twin("levir_cd", tmp_path)
    data = find_task("levir_cd").read(folder)
    for part in ("train", "val", "test"):
        theirs = peers.LEVIRCD(str(folder), part, checksum=False)
        assert len(theirs) == len(data.scenes[part])
        for number, files in enumerate(theirs.files):
            sample = theirs[number]
            compared(data, f"{part}/{Path(files['mask']).stem}", sample, sample["mask"].numpy()[0])


def test_loveda(peers, tmp_path):
    folder = twin("loveda", tmp_path)
    data = find_task("loveda").read(folder)
    for split, part in (("train", "train"), ("val", "test")):
        theirs = peers.LoveDA(str(folder), split)
        assert len(theirs) == len(data.scenes[part])
        for number, files in enumerate(theirs.files):
            path = Path(files["image"])
            sample = theirs[number]
            mask = sample["mask"].numpy()
            compared(
                data, f"{split.capitalize()}/{path.parents[1].name}/{path.stem}", sample, np.where(mask == 0, IGNORE, mask - 1)
            )


@pytest.mark.parametrize(("task", "peer"), [("potsdam", "Potsdam2D"), ("vaihingen", "Vaihingen2D")])
def test_isprs(peers, tmp_path, task, peer):
    folder = twin(task, tmp_path)
    data = find_task(task).read(folder)
    for part in ("train", "test"):
        theirs = getattr(peers, peer)(str(folder), part, checksum=False)
        assert len(theirs) == len(data.scenes[part])
        # theirs begin with clutter, ours end with it
        names = [name.lower() for name in theirs.classes]
        table = np.array([CLASSES.index("clutter" if name.startswith("clutter") else name) for name in names])
        for number, files in enumerate(theirs.files):
            stem = Path(files["image"]).stem
            area = stem.removeprefix("top_potsdam_").removesuffix("_RGBIR").removeprefix("top_mosaic_09cm_area")
            sample = theirs[number]
            compared(data, area, sample, table[sample["mask"].numpy()])
