"""The registry against a real MLflow server on loopback, with artifacts through the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.package.mlflow_model import load_encoder
from caco_assets.registry.register import register_encoder
from caco_assets.registry.stage import decide
from caco_assets.registry.versions import aliases, find
from caco_assets.resources.mlflow.client import open_tracking, server_arguments
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.systems,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def test_a_version_is_registered_decided_on_and_loaded_through_a_server(
    serve_mlflow: Callable[..., Any],
    mlflow_settings: Settings,
    encoder_dir: Callable[[int], Path],
    policy: Path,
    judged: dict[str, int],
) -> None:
    settings, server = mlflow_settings, serve_mlflow(server_arguments(mlflow_settings)).url
    remote = settings.model_copy(update={"registry": settings.registry.model_copy(update={"tracking_uri": server})})
    tracking = open_tracking(remote)
    registered = register_encoder(remote, encoder_dir(0), None, {"pack": "abc"}, tracking=tracking)
    assert decide(remote, tracking=tracking).passed
    assert aliases(tracking, "caco-tiny")["champion"] == registered.version
    assert find(tracking, registered.uri).source.startswith("mlflow-artifacts:/")
    loaded = load_encoder("models:/caco-tiny@champion", tracking)
    assert loaded.identity == Encoder.load(encoder_dir(0)).identity
    with pytest.raises(UserError, match="there are: challenger, champion"):
        load_encoder("models:/caco-tiny@nobody", tracking)
    with pytest.raises(UserError, match="there are: caco-tiny"):
        load_encoder("models:/other/1", tracking)
    assert any((settings.paths.workspace / "mlflow" / "artifacts").rglob("encoder.safetensors"))
