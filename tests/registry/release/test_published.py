"""A model that a person publishes with DVC (`caco export`, `dvc add`) belongs to that person: cleaning up leaves it alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caco_assets.core.products import content_hash
from caco_assets.registry.lineage.gc import find_garbage
from caco_assets.registry.release.export import export_version
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def dvc(settings: Settings, *arguments: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=settings.home, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_export_added_to_dvc_survives_a_cleaning_and_comes_back(
    mlflow_settings: Settings, encoder_dir: Callable[[int], Path]
) -> None:
    settings, tracking = mlflow_settings, open_tracking(mlflow_settings)
    ensure_home(settings)
    kept, given_up = settings.home / "models" / "caco-tiny", settings.home / "notes.txt"
    export_version(settings, str(encoder_dir(0)), kept)
    given_up.write_text("nobody needs this any more")
    published = content_hash(kept)
    dvc(settings, "add", "models/caco-tiny", "notes.txt")
    given_up.with_name("notes.txt.dvc").unlink()
    with find_garbage(settings, tracking=tracking) as found:
        assert list(found.stores[0].waste) == [content_hash(given_up)]
        found.delete()
    shutil.rmtree(kept)
    dvc(settings, "checkout", "models/caco-tiny.dvc")
    assert content_hash(kept) == published
