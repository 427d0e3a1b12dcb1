"""The encoder: one way in for pixels, exact round trips, no hidden state."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, EUROSAT_RGB, RGB, Encoder, Preprocessing, WeightsUnavailable
from caco_assets.pretraining.encoder.stretch import Stretch

PACKED = Preprocessing.of_pack(RGB, "seco", 32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.random("resnet18", PACKED, seed=0)


@pytest.fixture(scope="module")
def chips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4_000, (5, 12, 40, 40), dtype=np.uint16)


def test_a_chip_and_its_image_in_the_pack_give_exactly_the_same_tensor(encoder: Encoder, chips: np.ndarray):
    tables = Stretch.named("seco", RGB).tables()
    channels = [ARCHIVE.bands.index(band) for band in RGB]
    packed = np.stack([tables[c][chips[:, channel]] for c, channel in enumerate(channels)], axis=1)  # as pack.build writes it
    assert torch.equal(encoder.preprocess(chips, ARCHIVE, 32), encoder.normalise(packed, 32))


def test_preprocess_is_scale_normalise_resize(encoder: Encoder, chips: np.ndarray):
    levels = torch.from_numpy(PACKED.stretched(chips, ARCHIVE)).double()
    mean, std = torch.tensor(PACKED.mean).view(3, 1, 1), torch.tensor(PACKED.std).view(3, 1, 1)
    torch.testing.assert_close(encoder.preprocess(chips, ARCHIVE, 40).double(), (levels / 255 - mean) / std, rtol=0, atol=1e-6)
    resized = encoder.preprocess(chips, ARCHIVE)
    assert resized.shape == (5, 3, 32, 32)
    torch.testing.assert_close(resized.mean(), encoder.preprocess(chips, ARCHIVE, 40).mean(), rtol=0, atol=2e-3)


def test_features_do_not_depend_on_the_batch_size_or_on_being_in_training(encoder: Encoder, chips: np.ndarray):
    expected = encoder.features(chips, ARCHIVE)
    assert expected.shape == (5, 512)
    assert expected.dtype == np.float32
    encoder.train()
    before = encoder.identity
    np.testing.assert_allclose(encoder.features(chips, ARCHIVE, batch_size=2), expected, rtol=1e-4, atol=1e-5)
    assert encoder.training
    assert encoder.identity == before
    encoder.eval()


def test_no_images_give_no_features(encoder: Encoder):
    assert encoder.features(np.empty((0, 12, 40, 40), np.uint16), ARCHIVE).shape == (0, 512)


def test_random_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (Encoder.random("resnet18", PACKED, seed).identity for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_residual_branches_start_open_as_in_torchvision(encoder: Encoder):
    norms = [module.bn2.weight for module in encoder.backbone.modules() if hasattr(module, "bn2")]
    assert len(norms) == 8
    assert all((weight == 1).all() for weight in norms)


def test_the_pyramid_has_five_levels(encoder: Encoder):
    with torch.no_grad():
        levels = encoder.pyramid(torch.zeros(2, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


def test_the_last_level_pooled_is_the_feature(encoder: Encoder):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval().pyramid(images)[-1].mean(dim=(2, 3)), encoder(images))


def test_an_architecture_without_five_levels_says_so():
    convnext = Encoder.random("convnext_atto", PACKED, seed=0)
    with pytest.raises(UserError, match="convnext_atto: has no five feature levels"):
        convnext.pyramid(torch.zeros(1, 3, 32, 32))


def test_another_preprocessing_shares_the_weights(encoder: Encoder):
    unit = encoder.with_preprocessing(Preprocessing.unit_rgb(16))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    assert torch.equal(unit.preprocess(pixels, EUROSAT_RGB), torch.from_numpy(pixels) / 255)
    assert unit.backbone is encoder.backbone
    assert unit.identity != encoder.identity
    with pytest.raises(UserError, match=r"1 bands \(B08\), the backbone takes 3"):
        encoder.with_preprocessing(Preprocessing.of_pack(("B08",), "seco", 16))


def test_saving_and_loading_gives_the_same_encoder(encoder: Encoder, chips: np.ndarray, tmp_path: Path):
    encoder.save(tmp_path / "encoder", training_config={"epochs": 1}, data={"pack": "abc"})
    loaded = Encoder.load(tmp_path / "encoder")
    assert loaded.identity == encoder.identity
    assert np.array_equal(loaded.features(chips, ARCHIVE), encoder.features(chips, ARCHIVE))
    fields = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert (fields["recipe"], fields["data"], fields["architecture"]) == ({"epochs": 1}, {"pack": "abc"}, "resnet18")


def test_saving_twice_gives_the_same_bytes(encoder: Encoder, tmp_path: Path):
    for name in ("a", "b"):
        encoder.save(tmp_path / name, {}, {})
    for file in ("encoder.safetensors", "encoder.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_no_encoder_is_named(encoder: Encoder, tmp_path: Path):
    with pytest.raises(UserError, match=r"no encoder here \(encoder.safetensors is missing\)"):
        Encoder.load(tmp_path)
    encoder.save(tmp_path, {}, {})
    weights, description = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"
    text, content = description.read_text(), weights.read_bytes()
    for broken in (text[:-10], '{"architecture": "resnet18"}', "[]"):
        description.write_text(broken)
        with pytest.raises(UserError, match="not the description of an encoder"):
            Encoder.load(tmp_path)
    description.write_text(text.replace("resnet18", "resnet34"))
    with pytest.raises(UserError, match="not the weights of a resnet34"):
        Encoder.load(tmp_path)
    description.write_text(text)
    weights.write_bytes(content[:1000])
    with pytest.raises(UserError, match="not the weights of a resnet18"):
        Encoder.load(tmp_path)


def test_weights_and_description_of_two_encoders_are_told_apart(encoder: Encoder, tmp_path: Path):
    encoder.save(tmp_path, {}, {})
    tensors = load_file(tmp_path / "encoder.safetensors")
    tensors["conv1.weight"] += 1
    save_file(tensors, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match="do not belong together"):
        Encoder.load(tmp_path)


def test_an_unknown_architecture_gets_a_suggestion():
    with pytest.raises(UserError, match="backbone=resnet19: timm has no such architecture; did you mean resnet18"):
        Encoder.random("resnet19", PACKED, seed=0)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloaded weights."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def test_imagenet_weights_that_are_not_here_are_not_fetched(hub_cache: Path):
    with pytest.raises(WeightsUnavailable, match=r"resnet18.tv_in1k: not in the local cache \(timm/resnet18.tv_in1k\)"):
        Encoder.imagenet("resnet18", PACKED)
    with pytest.raises(WeightsUnavailable, match="timm has none"):
        Encoder.imagenet("resnet50t", PACKED)


@pytest.mark.parametrize("bands", [RGB, ("B04", "B03", "B02", "B08")])
def test_imagenet_weights_in_the_cache_are_used(hub_cache: Path, bands: tuple[str, ...]):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model("resnet18")
    snapshot = hub_cache / "models--timm--resnet18.tv_in1k" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (hub_cache / "models--timm--resnet18.tv_in1k" / "refs").mkdir()
    (hub_cache / "models--timm--resnet18.tv_in1k" / "refs" / "main").write_text("0123")
    save_file(model.state_dict(), snapshot / "model.safetensors")
    encoder = Encoder.imagenet("resnet18", Preprocessing.of_pack(bands, "seco", 32))
    assert torch.equal(encoder.backbone.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    assert encoder.backbone.conv1.weight.shape[1] == len(bands)
    assert encoder(torch.zeros(2, len(bands), 32, 32)).shape == (2, 512)
