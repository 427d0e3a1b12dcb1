"""Exports: every form gives the encoder's features, and says what it takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, Preprocessing
from caco_assets.registry.release import export as module
from caco_assets.registry.release.export import export
from caco_assets.registry.release.reflectance_network import ReflectanceNetwork

WHEN = datetime(2026, 10, 31, tzinfo=UTC)


def made(folder: Path, bands: tuple[str, ...] = ("B04", "B03", "B02"), architecture: str = "resnet18", size: int = 32) -> Encoder:
    encoder = Encoder.random(architecture, Preprocessing.of_pack(bands, "seco", size), seed=0).eval()
    folder.mkdir(parents=True)
    encoder.save(folder, {"seed": 0}, {})
    return encoder


def run(encoder: Encoder, source: Path, target: Path) -> dict[str, float]:
    return export(encoder, source, target, name="caco-3", when=WHEN, about="An encoder.")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path, dict[str, float]]:
    home = tmp_path_factory.mktemp("exports")
    encoder = made(home / "encoder", bands=("B04", "B03", "B02", "B08"))
    return encoder, home / "out", run(encoder, home / "encoder", home / "out")


def test_every_form_gives_the_encoders_features(exported: tuple[Encoder, Path, dict[str, float]]) -> None:
    _, folder, differences = exported
    assert set(differences) == {"timm.safetensors", "encoder.pt2", "encoder.onnx"}
    assert max(differences.values()) < 1e-4
    assert json.loads((folder / "parity.json").read_text()) == differences
    assert Encoder.load(folder).identity == exported[0].identity


def test_onnx_takes_any_number_of_images_of_plain_reflectance(exported: tuple[Encoder, Path, dict[str, float]]) -> None:
    import onnxruntime

    encoder, folder, _ = exported
    session = onnxruntime.InferenceSession(str(folder / "encoder.onnx"), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 9000, (7, 4, 32, 32), dtype=np.uint16)
    (found,) = session.run(None, {"reflectance": pixels.astype(np.int32)})
    from dataclasses import replace

    wanted = encoder.features(pixels, replace(ARCHIVE, bands=("B04", "B03", "B02", "B08")))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_item_says_what_goes_in_and_what_comes_out(exported: tuple[Encoder, Path, dict[str, float]]) -> None:
    item = pystac.Item.from_file(str(exported[1] / "item.json"))
    assert item.id == "caco-3"
    properties = item.properties
    assert properties["mlm:architecture"] == "resnet18"
    (taken,) = properties["mlm:input"]
    assert [band["name"] for band in taken["bands"]] == ["B04", "B03", "B02", "B08"]
    assert taken["input"] == {"shape": [-1, 4, 32, 32], "dim_order": ["batch", "bands", "height", "width"], "data_type": "int32"}
    (given,) = properties["mlm:output"]
    assert given["result"]["shape"] == [-1, 512]
    assert set(item.assets) == {"weights", "timm", "onnx", "exported"}
    for asset in item.assets.values():
        assert (exported[1] / asset.href).is_file()
        assert asset.extra_fields["mlm:artifact_type"]
    assert "/" not in item.assets["onnx"].href.removeprefix("./")


def test_values_beyond_the_table_are_its_ends(tmp_path: Path) -> None:
    encoder = made(tmp_path / "encoder")
    network = ReflectanceNetwork(encoder).eval()
    wild = torch.full((1, 3, 32, 32), 70_000, dtype=torch.int32)
    with torch.no_grad():
        assert torch.equal(network(wild), network(wild.clamp(max=65_535)))
        assert torch.equal(network(-wild), network(torch.zeros_like(wild)))


def test_a_form_that_differs_leaves_nothing_behind_and_the_old_export_in_place(tmp_path: Path, monkeypatch) -> None:
    encoder = made(tmp_path / "encoder")
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("kept")

    def wrong(encoder, network, images, path):
        path.write_text("")
        return np.zeros((3, 512), np.float32)

    monkeypatch.setattr(module, "_FORMS", {"encoder.onnx": wrong})
    with pytest.raises(UserError, match=r"encoder\.onnx differs by .* would not be the encoder that was evaluated"):
        run(encoder, tmp_path / "encoder", target)
    assert (target / "old").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "out"]


def test_a_registered_version_is_exported_by_its_address(settings, encoder_dir, tmp_path: Path) -> None:
    from caco_assets.registry.register import register_encoder
    from caco_assets.registry.release.export import export_version
    from caco_assets.resources.mlflow.client import open_tracking

    tracking = open_tracking(settings)
    registered = register_encoder(settings, encoder_dir(1), None, {}, None, tracking)
    found = export_version(settings, registered.uri, tmp_path / "out", tracking=tracking)
    assert max(found.values()) < 1e-3
    item = pystac.Item.from_file(str(tmp_path / "out" / "item.json"))
    assert item.id == f"{settings.registry.model}-{registered.version}"
    assert item.datetime is not None
    assert f"{item.datetime:%Y-%m}" == settings.vintage
    assert Encoder.load(tmp_path / "out").identity == Encoder.load(encoder_dir(1)).identity


def test_a_folder_of_something_else_is_not_overwritten(settings, encoder_dir, tmp_path: Path) -> None:
    from caco_assets.registry.release.export import export_version

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("")
    with pytest.raises(UserError, match=r"photos: exists and is not an export; name another folder"):
        export_version(settings, str(encoder_dir(1)), tmp_path / "photos")


def test_the_package_loads_an_encoder_in_one_line(encoder_dir, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import caco_assets

    monkeypatch.setenv("CACO_HOME", str(settings.home))
    assert caco_assets.load_encoder(str(encoder_dir(2)), "tiny").identity == Encoder.load(encoder_dir(2)).identity
