"""Published layouts become encoders whose features are those of the source network, with the preprocessing of their source."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, EUROSAT_RGB, RGB, Encoder, Preprocessing
from caco_assets.pretraining.pretrained.import_weights import Wish, encoder_folder, import_encoder
from caco_assets.pretraining.pretrained.sources import find_source, torchgeo_of
from caco_assets.pretraining.pretrained.state_dicts import architecture_of, find_backbone
from caco_assets.settings import Settings


def silent(line: str) -> None:
    pass


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """With batch-norm statistics of their own, as a trained network has."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return shaken(torchvision.models.resnet18())


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)


def headless(network: nn.Module) -> nn.Module:
    """As SeCo and CACo cut a torchvision ResNet."""
    return nn.Sequential(*list(network.children())[:-1], nn.Flatten())


class SequentialMoco(nn.Module):
    """The training module of SeCo and CACo, by its names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = headless(network), headless(torchvision.models.resnet18())
        self.heads_q = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3))
        self.register_buffer("queue", torch.zeros(3, 4, 16))
        self.register_buffer("queue_ptr", torch.zeros(3, 1, dtype=torch.long))


class Args:
    """Hyper-parameters of a class that the importing side does not have."""

    def __init__(self) -> None:
        self.data_dir = "somewhere"


def lightning(network: nn.Module, path: Path, **options: bool) -> Path:
    saved = {
        "epoch": 199,
        "global_step": 78000,
        "pytorch-lightning_version": "1.1.8",
        "hyper_parameters": {"args": Args(), "lr": 0.03},
    }
    torch.save({**saved, "state_dict": SequentialMoco(network).state_dict(), "optimizer_states": [{"state": {}}]}, path, **options)
    return path


def moco(network: nn.Module, path: Path) -> Path:
    torch.save({"arch": "resnet18", "state_dict": {f"module.encoder_q.{k}": v for k, v in network.state_dict().items()}}, path)
    return path


def plain(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def sequential(network: nn.Module, path: Path) -> Path:
    torch.save(headless(network).state_dict(), path)
    return path


def safetensors(network: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items() if not name.startswith("fc.")}, path)
    return path


LAYOUTS = {
    "lightning": (lightning, "seco_resnet18_1m.ckpt", None),
    "lightning of before torch 1.6": (lambda n, p: lightning(n, p, _use_new_zipfile_serialization=False), "x.ckpt", None),
    "the encoder of caco alone": (sequential, "resnet18_caco_geo_100k_1000.pth", None),
    "moco": (moco, "moco_v2.pth.tar", "imagenet"),
    "torchvision": (plain, "resnet18-f37072fd.pth", None),
    "safetensors without head": (safetensors, "model.safetensors", "imagenet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_those_of_the_network_that_was_saved(
    settings: Settings, tmp_path: Path, resnet18, images, layout: str
) -> None:
    write, name, source = LAYOUTS[layout]
    product = import_encoder(settings, str(write(resnet18, tmp_path / name)), "theirs", Wish(source=source))
    assert product.path == settings.paths.encoders / "theirs"
    assert product.facts["architecture"] == "resnet18"
    encoder = Encoder.load(product.path)
    x = encoder.preprocess(images, EUROSAT_RGB, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), headless(resnet18)(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        encoder.features(images, EUROSAT_RGB, 64), headless(resnet18)(x).detach().numpy(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "bands", "features"), [("resnet50", 3, 2048), ("vit_small_patch16_224", 3, 384), ("vit_small_patch16_224", 5, 384)]
)
def test_other_architectures_and_band_sets_are_told_by_their_shapes(
    settings, tmp_path, name: str, bands: int, features: int
) -> None:
    torch.manual_seed(0)
    network = shaken(timm.create_model(name, num_classes=7, in_chans=bands))
    path = plain(network, tmp_path / "weights.pth")
    wanted = ("B02", "B03", "B04", "B08", "B11")[:bands]
    product = import_encoder(settings, str(path), "theirs", Wish(source="imagenet", bands=wanted))
    encoder = Encoder.load(product.path)
    assert (encoder.architecture, encoder.width, encoder.preprocessing.bands) == (name, features, wanted)
    x = torch.randn(1, bands, 224, 224, generator=torch.Generator().manual_seed(1))
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), network(x), rtol=1e-4, atol=1e-4)


def test_the_preprocessing_is_that_of_the_source(settings: Settings, tmp_path: Path, resnet18) -> None:
    seco = import_encoder(settings, str(lightning(resnet18, tmp_path / "seco.ckpt")), "seco", None)
    assert Encoder.load(seco.path).preprocessing == Preprocessing.of_pack(RGB, "seco", 224)
    photos = import_encoder(settings, str(plain(resnet18, tmp_path / "tv.pth")), "photos", None)
    assert Encoder.load(photos.path).preprocessing == Preprocessing.of_pack(RGB, "eurosat", 224)
    (tmp_path / "own.json").write_text(json.dumps({"preprocessing": Preprocessing.of_pack(RGB, "reflectance", 96).to_dict()}))
    wish = Wish(preprocessing=tmp_path / "own.json", size=64)
    own = import_encoder(settings, str(tmp_path / "tv.pth"), "own", wish)
    assert Encoder.load(own.path).preprocessing == Preprocessing.of_pack(RGB, "reflectance", 64)


def test_source_licence_and_hash_are_written_beside_the_weights(settings: Settings, tmp_path: Path, resnet18) -> None:
    path = lightning(resnet18, tmp_path / "resnet18_caco_geo_1m_200.ckpt")
    product = import_encoder(settings, str(path), "caco-1m", None)
    about = json.loads((product.path / "encoder.json").read_text())
    assert "Mall et al." in about["recipe"]["source"]
    assert "MIT" in about["recipe"]["source"]
    assert about["recipe"]["objective"] == "imported from caco"
    assert about["data"]["imported"]["file"] == path.name
    assert len(about["data"]["imported"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(about)
    assert import_encoder(settings, str(path), "caco-1m", None).reused
    assert not import_encoder(settings, str(path), "caco-1m", Wish(size=64)).reused


def test_an_encoder_of_ours_comes_in_as_it_is(settings: Settings, tmp_path: Path, images) -> None:
    ours = Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "seco", 32), 5)
    ours.save(tmp_path / "elsewhere", {"objective": "caco"}, {"pack": "abc"})
    product = import_encoder(settings, str(tmp_path / "elsewhere"), "ours", None)
    assert Encoder.load(product.path).identity == ours.identity
    assert json.loads((product.path / "encoder.json").read_text())["recipe"]["objective"] == "caco"
    with pytest.raises(UserError, match=r"no encoder here \(encoder.safetensors is missing\)"):
        import_encoder(settings, str(tmp_path), "none", None)


@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [
        ("ResNet18_Weights.SENTINEL2_RGB_SECO", Preprocessing.of_pack(RGB, "seco", 224)),
        ("ResNet18_Weights.SENTINEL2_RGB_MOCO", None),
        ("ViTSmall16_Weights.SENTINEL2_ALL_DINO", None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_torchgeos_names_bring_their_bands_and_normalisation(name: str, preprocessing: Preprocessing | None) -> None:
    found = find_source(f"torchgeo:{name}").preprocess()
    if preprocessing:
        assert found == preprocessing
        return
    assert found.bands[:1] in (("B04",), ("B01",))
    assert (found.stretch.name, set(found.mean), set(found.std), found.size) == ("reflectance", {0.0}, {1.0}, 224)
    # within half a step of the 255 between reflectance 0 and 1, what torchgeo's own transforms say: DN / 10 000
    pixels = np.random.default_rng(0).integers(0, 10_000, (1, len(found.bands), 8, 8), dtype=np.uint16)
    encoder = Encoder("", found, nn.Identity())
    seen = encoder.normalise(found.stretched(pixels, type(ARCHIVE)(found.bands, 1e-4)), 8)
    np.testing.assert_allclose(seen.numpy(), pixels / 10_000, atol=0.5 / 255 + 1e-6)


@pytest.mark.filterwarnings("ignore")
def test_torchgeos_file_is_known_by_its_name_and_found_in_torchs_cache(settings, tmp_path, resnet18, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    named = "torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO"
    with pytest.raises(
        UserError, match=r"torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO: .*resnet18_sentinel2_rgb_moco-.* is not there"
    ):
        import_encoder(settings, named, "moco", None)
    file = "resnet18_sentinel2_rgb_moco-e3a335e3.pth"
    assert torchgeo_of(file) == named
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    weights = {name: tensor for name, tensor in resnet18.state_dict().items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "torch" / "hub" / "checkpoints" / file)
    cached = import_encoder(settings, named, "moco", None)
    local = import_encoder(settings, str(tmp_path / "torch" / "hub" / "checkpoints" / file), "local", None)
    assert Encoder.load(cached.path).identity == Encoder.load(local.path).identity
    assert "SSL4EO-S12" in cached.facts["source"]
    with pytest.raises(UserError, match="other numbers than Sentinel-2's reflectance"):
        find_source("torchgeo:ResNet18_Weights.LANDSAT_OLI_SR_MOCO").preprocess()
    with pytest.raises(UserError, match="torchgeo has no such weights"):
        find_source("torchgeo:ResNet18_Weights.NOTHING")


def test_what_does_not_fit_is_said_by_name(settings: Settings, tmp_path: Path, resnet18) -> None:
    weights = {name: tensor for name, tensor in resnet18.state_dict().items() if name != "layer2.0.conv1.weight"}
    weights["layer2.0.conv9.weight"] = torch.ones(1)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"missing: layer2.0.conv1.weight; unexpected: layer2.0.conv9.weight"):
        import_encoder(settings, str(tmp_path / "odd.pth"), "odd", None)
    with pytest.raises(UserError, match=r"not those of a resnet50 \(missing: layer1.0.bn3.bias, .*of another shape: "):
        import_encoder(settings, str(plain(resnet18, tmp_path / "r18.pth")), "r50", Wish(backbone="resnet50"))
    with pytest.raises(UserError, match=r"takes 3 bands, the preprocessing of imagenet has 2 \(B04, B08\); name them with --bands"):
        import_encoder(settings, str(tmp_path / "r18.pth"), "two", Wish(bands=("B04", "B08")))
    torch.save({"conv1.weight": torch.full((4, 3, 7, 7), torch.nan)}, tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"no usual architecture \(\?\); name the timm architecture with --backbone"):
        import_encoder(settings, str(tmp_path / "tiny.pth"), "tiny", Wish(source="imagenet"))
    torch.save({"layers.0.weight": torch.ones(3)}, tmp_path / "mlp.pth")
    with pytest.raises(UserError, match=r"no ResNet or ViT by its names \(layers.0.weight\)"):
        import_encoder(settings, str(tmp_path / "mlp.pth"), "mlp", None)
    diverged = {name: tensor * torch.nan if name == "conv1.weight" else tensor for name, tensor in resnet18.state_dict().items()}
    torch.save(diverged, tmp_path / "nan.pth")
    with pytest.raises(UserError, match=r"weights: not finite in conv1\.weight"):
        import_encoder(settings, str(tmp_path / "nan.pth"), "nan", None)
    assert not settings.paths.encoders.exists() or not list(settings.paths.encoders.glob("*/encoder.json"))


def test_weights_of_unknown_source_are_not_guessed_at(settings: Settings, tmp_path: Path, resnet18) -> None:
    path = safetensors(resnet18, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"does not say where its weights come from.* --source \(seco, caco, imagenet, torchgeo:<name>\)"
    ):
        import_encoder(settings, str(path), "unknown", None)
    with pytest.raises(UserError, match=r"--source sico: there is no such source of weights"):
        import_encoder(settings, str(path), "unknown", Wish(source="sico"))
    with pytest.raises(UserError, match=r"--as ../x: a name has at most 64 letters"):
        import_encoder(settings, str(path), "../x", None)


def test_the_architectures_of_the_field_are_known_by_their_blocks() -> None:
    for name in ("resnet18", "resnet34", "resnet50"):
        assert architecture_of(find_backbone(timm.create_model(name).state_dict())) == name
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_224"):
        assert architecture_of(find_backbone(timm.create_model(name).state_dict())) == name


def test_the_command_brings_an_encoder_in_and_others_find_it_by_name(tmp_path: Path, resnet18, monkeypatch) -> None:
    monkeypatch.setenv("CACO_HOME", str(tmp_path / "home"))
    path = lightning(resnet18, tmp_path / "seco_resnet18_1m.ckpt")
    shown = CliRunner().invoke(main, ["encoder", "import", str(path), "--as", "seco-1m", "--size", "64", "--profile", "tiny"])
    assert shown.exit_code == 0, shown.output
    assert "encoders/seco-1m: made" in shown.output
    from caco_assets.settings import load_settings

    settings = load_settings("tiny")
    assert encoder_folder(settings, "seco-1m") == settings.paths.encoders / "seco-1m"
    assert encoder_folder(settings, str(settings.paths.encoders / "seco-1m")) == settings.paths.encoders / "seco-1m"
    with pytest.raises(UserError, match=r"--encoder caco-1m: no encoder of that name .* there are seco-1m; `caco encoder import`"):
        encoder_folder(settings, "caco-1m")
