"""The model card shows how the encoder was trained, from the keys that training writes to `encoder.json`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.pretraining.training.run_config import training_config
from caco_assets.registry.release.model_card import TRAINING_FACTS, write_model_card
from caco_assets.settings import Settings

PARENT = {"uri": "models:/caco-tiny/7", "identity": "abc"}


def description_of(settings: Settings, folder: Path, data: dict[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    """A new encoder as training saves it, and its `encoder.json`."""
    encoder = Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), 0)
    encoder.save(folder, training_config(settings.pretraining, settings.seed), data)
    return encoder, json.loads((folder / "encoder.json").read_text())


def card_of(settings: Settings, encoder: Encoder, description: dict[str, Any]) -> str:
    version = SimpleNamespace(name="caco-tiny", version="1", tags={})
    return write_model_card(settings, cast("Any", version), encoder, description, [], "none.")


def test_the_card_of_a_new_encoder_names_its_optimizer_and_its_parent(settings: Settings, tmp_path: Path) -> None:
    encoder, description = description_of(settings, tmp_path, {"parent": PARENT})
    card = card_of(settings, encoder, description)
    assert f"optimizer {settings.pretraining.optimizer}" in card
    assert "It was warm-started from models:/caco-tiny/7." in card


def test_training_writes_every_key_that_the_cards_and_the_lineage_ask_for(settings: Settings, tmp_path: Path) -> None:
    _, description = description_of(settings, tmp_path, {})
    assert {"architecture", "recipe", "data", "identity", "preprocessing"} <= description.keys()
    # `objective` and `backbone` also stand in the description of a version and in its lineage tree
    assert {*TRAINING_FACTS, "objective", "backbone"} <= description["recipe"].keys()


def test_the_card_of_an_imported_encoder_says_that_its_training_is_not_recorded(
    settings: Settings, encoder_dir: Callable[[int], Path]
) -> None:
    folder = encoder_dir(0)
    description = {**json.loads((folder / "encoder.json").read_text()), "recipe": {}}
    card = card_of(settings, Encoder.load(folder), description)
    assert "an imported encoder" in card
    assert "The training settings are not recorded." in card
