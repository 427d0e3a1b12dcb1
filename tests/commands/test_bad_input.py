"""What a user gets for bad input: one line that names the thing, the value and the way out, and exit status 2."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What leads the command to an empty home, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return {"CACO_HOME": str(tmp_path), "CACO_REAL": str(tmp_path / "absent")}


def assert_one_line(status: int, stderr: str, expected: str) -> None:
    assert status == 2, stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("caco: ")
    assert expected in last
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["demo", "--profile", "embeded"], {}, "profile=embeded: there is no such profile; choose one of"),
        (["settings"], {"CACO_SAMPLING__PLACEZ": "3"}, "placez"),
        (["demo", "--profile", "tiny"], {"CACO_PRETRAINING__OBJECTIVE": "cacoo"}, "cacoo"),
        (["demo", "--profile", "boadella"], {}, "sentinel2_boadella: no such folder"),
        (["catalog", "build", "absent", "--bands", "B02", "--out", "out"], {}, "absent: no such folder"),
        (["pretrain", "--profile", "tiny"], {}, "pack: not made yet"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    environment: dict[str, str], arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    done = CliRunner().invoke(main, arguments, env={**environment, **variables})
    assert_one_line(done.exit_code, done.stderr, expected)


def test_an_encoder_that_is_not_registered_gets_one_line(mlflow_settings: Settings, environment: dict[str, str]) -> None:
    arguments = ["embed", "absent.tif", "--encoder", "models:/nothing@champion", "--profile", "tiny"]
    done = CliRunner().invoke(main, arguments, env=environment)
    assert_one_line(done.exit_code, done.stderr, "models:/nothing@champion")


def test_the_program_itself_gives_one_line_and_status_2(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "caco_assets.cli", "demo", "--profile", "embeded"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert_one_line(done.returncode, done.stderr, "profile=embeded: there is no such profile; choose one of")


def test_without_any_python_3_12_set_up_says_so(tmp_path: Path) -> None:
    """No Python, no uv, no network: only the shell's own tools on PATH."""
    tools, checkout = tmp_path / "bin", tmp_path / "checkout"
    for folder in (tools, checkout / "scripts"):
        folder.mkdir(parents=True)
    for tool in ("bash", "dirname", "date", "grep", "awk"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    shutil.copy(REPOSITORY / "scripts" / "setup.sh", checkout / "scripts")
    shutil.copy(REPOSITORY / "requirements.lock", checkout)
    done = subprocess.run(
        [str(tools / "bash"), "scripts/setup.sh"],
        cwd=checkout,
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python 3.12" in done.stderr.strip().splitlines()[-1]
