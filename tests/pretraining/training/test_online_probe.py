"""The probe during training: its file, its figure, and that it leaves the network as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import EUROSAT_RGB, RGB, Encoder, PixelFormat, Preprocessing
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.online_probe import TRAIN, VALIDATION, ProbeSet, load_probe
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import load_settings

PREPROCESSING = Preprocessing.of_pack(RGB, "eurosat", 32)


def coloured(per_class: int = 12, fmt: PixelFormat = EUROSAT_RGB, dtype: str = "uint8") -> ProbeSet:
    """Three classes of one colour each, with noise; two thirds train."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[labels]
    images = np.clip(colours[:, :, None, None] + rng.normal(0, 20, (len(labels), 3, 32, 32)), 0, 255).astype(dtype)
    part = np.where(np.arange(len(labels)) % 3 == 2, VALIDATION, TRAIN).astype(np.uint8)
    return ProbeSet(images[:, : len(fmt.bands)], labels, part, fmt, "colours 1")


def by_hand(encoder: Encoder, probe_set: ProbeSet) -> float:
    """The slow version: the 20 largest cosines of each question vote, the lowest class of equals."""
    features = encoder.features(probe_set.images, probe_set.pixel_format).astype(np.float64)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    train = probe_set.part == TRAIN
    right = []
    for question, label in zip(units[~train], probe_set.labels[~train], strict=True):
        nearest = np.argsort(-(units[train] @ question), kind="stable")[:20]
        right.append(np.bincount(probe_set.labels[train][nearest], minlength=3).argmax() == label)
    return float(np.mean(right))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_file_holds_the_set_and_the_same_set_gives_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    written = coloured(dtype=dtype)
    for name in ("a.npz", "b.npz"):
        written.write(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = ProbeSet.read(tmp_path / "a.npz")
    for name in ("images", "labels", "part"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.images.dtype == dtype
    assert (read.pixel_format, read.source) == (EUROSAT_RGB, "colours 1")


def test_the_figure_is_that_of_the_slow_version(tmp_path: Path) -> None:
    coloured().write(tmp_path / "set.npz")
    figures = set()
    for seed in range(3):
        encoder = Encoder.random("test_resnet", PREPROCESSING, seed)
        figure = load_probe(tmp_path / "set.npz", "test_resnet", PREPROCESSING)(encoder.backbone)
        assert figure == by_hand(encoder, coloured())
        figures.add(figure)
    assert max(figures) > 0.5


def test_weights_statistics_modes_and_random_numbers_stay_as_they_were(tmp_path: Path) -> None:
    coloured().write(tmp_path / "set.npz")
    network = Encoder.random("test_resnet", PREPROCESSING, 0).backbone.train()
    next(network.children()).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes, random = [module.training for module in network.modules()], torch.get_rng_state()
    load_probe(tmp_path / "set.npz", "test_resnet", PREPROCESSING)(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_a_probed_run_makes_the_weights_of_one_that_is_not(tmp_path: Path, make_pack) -> None:
    pack = make_pack(tmp_path / "pack")
    coloured().write(tmp_path / "set.npz")
    wanted = {"backbone": "test_resnet", "threads": 1, "device": "cpu", "epochs": 3}
    for name, every in (("probed", 2), ("plain", 0)):
        options = load_settings("tiny", home=tmp_path, pretraining={**wanted, "probe_every": every}).pretraining
        probe = tmp_path / "set.npz" if every else None
        facts = make_encoder(RunConfig(pack=pack, target=tmp_path / name, pretraining=options, probe=probe))
        assert ("probe" in facts) == bool(every)
    assert Encoder.load(tmp_path / "probed").identity == Encoder.load(tmp_path / "plain").identity
    probes = {line["epoch"]: line["probe"] for line in read_metrics(tmp_path / "probed" / "metrics.jsonl") if "probe" in line}
    assert list(probes) == [1]
    assert 0 <= probes[1] <= 1


def test_a_file_that_is_no_probe_set_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    with pytest.raises(UserError, match=r"set\.npz: not a readable probe set .* `caco probe-set`"):
        ProbeSet.read(file)
    coloured().write(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable probe set"):
        ProbeSet.read(file)
    np.savez(file, images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="not a readable probe set"):
        ProbeSet.read(file)
    alone = coloured()
    ProbeSet(alone.images, alone.labels, np.zeros_like(alone.part), alone.pixel_format, "").write(file)
    with pytest.raises(UserError, match=r"not a sound probe set \(36 images, parts of \[36, 0\]\)"):
        ProbeSet.read(file)


def test_images_without_the_encoders_bands_are_refused_before_training(tmp_path: Path) -> None:
    coloured(fmt=PixelFormat(("B04", "B03"), 1 / 255)).write(tmp_path / "set.npz")
    with pytest.raises(UserError, match=r"pretraining.probe_task: bands: the pixels have B04, B03, the encoder also needs B02"):
        load_probe(tmp_path / "set.npz", "test_resnet", PREPROCESSING)
