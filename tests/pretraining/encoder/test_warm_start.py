"""Training that begins with the champion's weights: which they are is part of what the encoder is made from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce, recorded
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.pretraining.encoder.warm_start import begin_with
from caco_assets.pretraining.stage import starting_point
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig, training_config
from caco_assets.settings import Pretraining, Settings

OPTIONS = {"backbone": "test_resnet", "image_size": 32, "batch_size": 8, "queue_size": 32, "threads": 1, "device": "cpu"}


def encoder(seed: int, bands: tuple[str, ...] = ("B04", "B03", "B02"), side: int = 32) -> Encoder:
    return Encoder.random("test_resnet", Preprocessing.of_pack(bands, "seco", side), seed)


def test_a_network_takes_the_weights_of_its_parent_whatever_the_size_of_its_images(tmp_path: Path) -> None:
    older, mine = encoder(7, side=64), encoder(0)
    older.save(tmp_path / "parent", {}, {})
    begin_with(mine, tmp_path / "parent")
    for name, weights in older.backbone.state_dict().items():
        assert torch.equal(mine.backbone.state_dict()[name], weights), name


def test_a_parent_of_other_bands_is_refused_with_what_to_do(tmp_path: Path) -> None:
    encoder(7, bands=("B08", "B04", "B03")).save(tmp_path / "parent", {}, {})
    with pytest.raises(UserError, match=r"bands=B08,B04,B03, this training has B04,B03,B02; set pretraining.bands to that, or"):
        begin_with(encoder(0), tmp_path / "parent")


def test_training_begins_with_the_parent_and_names_it(tmp_path: Path, make_pack: Callable[..., Path]) -> None:
    encoder(7).save(tmp_path / "parent", {}, {})
    # a rate of nearly nothing: after one epoch the weights are still those that it began with
    options = Pretraining(**OPTIONS, epochs=1, learning_rate=1e-12, weight_decay=0)
    config = RunConfig(pack=make_pack(tmp_path / "pack"), target=tmp_path / "out", pretraining=options, parent=tmp_path / "parent")
    make_encoder(config.model_copy(update={"data": {"parent": {"identity": "abc"}}}))
    trained, start = (Encoder.load(tmp_path / name).backbone.state_dict() for name in ("out", "parent"))
    weights = [name for name in start if name.endswith("weight") and "bn" not in name]
    assert weights
    for name in weights:
        torch.testing.assert_close(trained[name], start[name], rtol=0, atol=1e-6)
    assert '"parent"' in (tmp_path / "out" / "encoder.json").read_text()


def test_a_warm_start_has_the_training_config_of_a_cold_one() -> None:
    assert training_config(Pretraining(warm_start="champion"), 0) == training_config(Pretraining(), 0)
    assert "warm_start" not in training_config(Pretraining(), 0)


def test_what_to_begin_with_is_that_of_this_vintage(settings: Settings) -> None:
    assert starting_point(settings, None) == (None, {})
    warm = settings.model_copy(update={"pretraining": settings.pretraining.model_copy(update={"warm_start": "champion"})})
    with pytest.raises(UserError, match="parent: not made yet"):
        recorded(warm.paths.records, "parent")
    with pytest.raises(UserError, match="parent: of vintage none, wanted is 2026-10; run `caco parent`"):
        starting_point(warm, None)

    def parent(vintage: str, uri: str | None) -> None:
        facts = {"vintage": vintage, "uri": uri, "identity": uri and "abc"}
        given = {"records": warm.paths.records, "recipe": "1", "inputs": facts}
        produce("parent", warm.paths.root / "parent", **given, make=lambda folder: folder.mkdir() or facts)

    parent(warm.vintage, "models:/caco-tiny/3")
    folder, named = starting_point(warm, recorded(warm.paths.records, "parent"))
    assert folder == warm.paths.root / "parent"
    assert named == {"parent": {"uri": "models:/caco-tiny/3", "identity": "abc"}}
    parent(warm.vintage, None)
    assert starting_point(warm, recorded(warm.paths.records, "parent")) == (None, {})
    parent("2025-01", "models:/caco-tiny/3")
    with pytest.raises(UserError, match=r"parent: of vintage 2025-01, wanted is 2026-10"):
        starting_point(warm, recorded(warm.paths.records, "parent"))
