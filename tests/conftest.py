"""Shared fixtures: settings in a folder of the test's own, and the folders of reference data."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from click.testing import CliRunner
from filelock import FileLock

# before torch is imported: the tests' tensors are tiny, and two workers with two threads each on two cores mostly wait
os.environ.setdefault("OMP_NUM_THREADS", "1")

from caco_assets.observability.logs import log_to
from caco_assets.settings import Settings, load_settings

# How long an example takes says more about the machine than about the code. CI judges a change always by the same examples;
# elsewhere every run looks for new ones.
EXAMPLES = 200 if os.environ.get("SLOW") else 25
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=EXAMPLES)
hypothesis.settings.register_profile("here", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

pytest_plugins = ["scripted_server", "servers", "small_products", "tiny_earth"]

REPOSITORY = Path(__file__).resolve().parents[1]


def _shared(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / name)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden numbers (`CACO_GOLDEN`); the test is skipped, saying so, where it is absent."""
    folder = _shared("CACO_GOLDEN", "golden")
    if not folder.is_dir():
        pytest.skip(f"no golden numbers: {folder} does not exist (set CACO_GOLDEN)")
    return folder


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real imagery (`CACO_REAL`); the test is skipped, saying so, where it is absent."""
    folder = _shared("CACO_REAL", "real")
    if not folder.is_dir():
        pytest.skip(f"no real imagery: {folder} does not exist (set CACO_REAL)")
    return folder


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """`lines = logged()`: the texts that the package logs from then on; a second list takes over from the first."""
    with ExitStack() as stack:

        def collect() -> list[str]:
            stack.close()
            lines: list[str] = []
            stack.enter_context(log_to(lambda _level, line: lines.append(line)))
            return lines

        yield collect


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded profile, very small, with all state in the test's own folder."""
    return load_settings("tiny", home=tmp_path)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`once(name, make)`: a folder that `make(folder)` fills one time per run of the tests, for all workers. Read it or copy it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = shared / name, shared / f"{name}.complete"
        with FileLock(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def tiny_home(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A home with the data of the profile `tiny`, from the drawn Earth to the pack, made by the commands. Read it or copy it."""
    from caco_assets.cli import main

    def make(home: Path) -> None:
        variables = {"CACO_HOME": str(home), "CACO_PROFILE": "tiny", "CACO_REAL": str(home / "absent")}
        for command in ("sample", "plan", "ingest", "pack"):
            done = CliRunner().invoke(main, [command], env=variables, catch_exceptions=False)
            assert done.exit_code == 0, done.stderr

    return once("tiny_home", make)


@pytest.fixture(scope="session")
def migrated_mlflow(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """An empty MLflow database, made once: its migration takes seconds."""
    from caco_assets.resources.mlflow.client import open_tracking

    home = once("mlflow", lambda home: open_tracking(load_settings("tiny", home=home)))
    return home / "workspace" / "mlflow" / "mlflow.db"


@pytest.fixture
def mlflow_settings(settings: Settings, migrated_mlflow: Path) -> Settings:
    """`settings`, whose workspace already has an empty MLflow database."""
    target = settings.paths.workspace / "mlflow" / "mlflow.db"
    target.parent.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, target)
    return settings
