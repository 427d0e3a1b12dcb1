"""Checkpoints of other frameworks hold their network under many names: the usual ones are known, `--prefix` names the others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import EUROSAT_RGB, Encoder
from caco_assets.pretraining.pretrained import import_weights
from caco_assets.pretraining.pretrained.import_weights import Wish, import_encoder

ARCHITECTURE = "test_vit"
WISH = Wish(source="imagenet", backbone=ARCHITECTURE, size=64)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=0, dynamic_img_size=True).eval()


@pytest.fixture(scope="module")
def other() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model(ARCHITECTURE, num_classes=0, dynamic_img_size=True).eval()


def under(prefix: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def assert_is(product, network: torch.nn.Module) -> None:
    encoder = Encoder.load(product.path)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 64), dtype=np.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(encoder.preprocess(pixels, EUROSAT_RGB)), network(encoder.preprocess(pixels, EUROSAT_RGB))
        )


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "encoder_q._orig_mod.",
        "module.base_encoder.",
        "student_backbone.",
        "teacher_backbone.",
        "online_network.backbone.",
        "module.model.",
    ],
)
def test_the_usual_prefixes_are_known(settings, tmp_path: Path, network, prefix: str):
    torch.save({"state_dict": under(prefix, network)}, tmp_path / "x.pth")
    assert_is(import_encoder(settings, str(tmp_path / "x.pth"), "theirs", WISH), network)


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "backbone"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_usual_places_of_a_state_dict_are_known(settings, tmp_path: Path, network, key: str, prefix: str):
    torch.save({"epoch": 3, key: under(prefix, network)}, tmp_path / "x.pth")
    assert_is(import_encoder(settings, str(tmp_path / "x.pth"), "theirs", WISH), network)


def test_the_trained_network_is_taken_before_its_average_and_a_prefix_takes_the_average(settings, tmp_path: Path, network, other):
    torch.save({"model": under("", network), "model_ema": under("module.", other)}, tmp_path / "x.pth")
    assert_is(import_encoder(settings, str(tmp_path / "x.pth"), "theirs", WISH), network)
    for prefix in ("model_ema", "model_ema.", "model_ema.module", "module"):
        wish = Wish(source="imagenet", backbone=ARCHITECTURE, size=64, prefix=prefix)
        assert_is(import_encoder(settings, str(tmp_path / "x.pth"), "average", wish), other)


def test_a_dinos_teacher_is_taken_before_its_student(settings, tmp_path: Path, network, other):
    torch.save({"student": under("module.backbone.", other), "teacher": under("backbone.", network)}, tmp_path / "x.pth")
    assert_is(import_encoder(settings, str(tmp_path / "x.pth"), "theirs", WISH), network)
    save_file(under("student_backbone.", other) | under("teacher_backbone.", network), tmp_path / "x.safetensors")
    assert_is(import_encoder(settings, str(tmp_path / "x.safetensors"), "theirs", WISH), network)


def test_a_prefix_that_nobody_knows_is_found_if_there_is_one_network_and_it_is_logged(settings, tmp_path: Path, network, logged):
    lines = logged()
    save_file(under("my.own.tower.", network) | {"my.head.weight": torch.ones(3, 2)}, tmp_path / "x.safetensors")
    product = import_encoder(settings, str(tmp_path / "x.safetensors"), "theirs", WISH)
    assert_is(product, network)
    assert any("the network is under my.own.tower. in the file" in line for line in lines)
    assert product.facts["layout"] == "my.own.tower."


def test_several_networks_are_listed_and_the_users_word_decides(settings, tmp_path: Path, network, other):
    save_file(under("a.tower.", network) | under("b.tower.", other), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"several networks \(a\.tower\., b\.tower\.\); name one with --prefix"):
        import_encoder(settings, str(tmp_path / "x.safetensors"), "theirs", WISH)
    wish = Wish(source="imagenet", backbone=ARCHITECTURE, size=64, prefix="b.tower")
    product = import_encoder(settings, str(tmp_path / "x.safetensors"), "theirs", wish)
    assert_is(product, other)
    assert product.facts["layout"] == "b.tower."


def test_a_prefix_that_is_not_there_is_refused_with_those_that_are(settings, tmp_path: Path, network):
    torch.save({"state_dict": under("a.tower.", network)}, tmp_path / "x.pth")
    wish = Wish(source="imagenet", prefix="c")
    with pytest.raises(UserError, match=r"--prefix c: no tensor's name begins so; there are state_dict\.a\.tower"):
        import_encoder(settings, str(tmp_path / "x.pth"), "theirs", wish)


def test_the_command_takes_a_prefix(tmp_path: Path, network, other, monkeypatch):
    monkeypatch.setenv("CACO_HOME", str(tmp_path / "home"))
    torch.save({"state_dict": under("a.", other) | under("b.", network)}, tmp_path / "x.pth")
    options = ["--profile", "tiny", "--source", "imagenet", "--backbone", ARCHITECTURE, "--size", "64", "--bands", "B04, B03, B02"]
    shown = CliRunner().invoke(main, ["encoder", "import", str(tmp_path / "x.pth"), "--as", "b", *options, "--prefix", "b"])
    assert shown.exit_code == 0, shown.output
    assert "B04, B03, B02" in shown.output


def test_an_import_without_a_prefix_keeps_the_fingerprint_that_it_had(settings, tmp_path: Path, network, monkeypatch):
    seen = []
    make = import_weights.produce
    monkeypatch.setattr(
        import_weights, "produce", lambda *args, **options: seen.append(options["inputs"]) or make(*args, **options)
    )
    torch.save(network.state_dict(), tmp_path / "x.pth")
    import_encoder(settings, str(tmp_path / "x.pth"), "theirs", WISH)
    assert import_encoder(settings, str(tmp_path / "x.pth"), "theirs", replace(WISH, max_gb=1.0)).reused
    assert not import_encoder(settings, str(tmp_path / "x.pth"), "theirs", replace(WISH, prefix="")).reused
    assert set(seen[0]) == {"sha256", "file", "source", "backbone", "bands", "size", "preprocessing"}
