"""What a user gets for bad input: one line that names the thing, the value and the way out, and exit status 2."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def _caco(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caco_assets.cli", *arguments],
        env={**os.environ, "CACO_HOME": str(home), "CACO_REAL": str(home / "absent"), **environment},
        cwd=home,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["demo", "--profile", "embeded"], {}, "profile=embeded: there is no such profile; choose one of"),
        (["settings"], {"CACO_SAMPLING__PLACEZ": "3"}, "placez"),
        (["demo", "--profile", "tiny"], {"CACO_PRETRAINING__OBJECTIVE": "cacoo"}, "cacoo"),
        (["demo", "--profile", "boadella"], {}, "sentinel2_boadella: no such folder"),
        (["catalog", "build", "absent", "--bands", "B02", "--out", "out"], {}, "absent: no such folder"),
        (["pretrain", "--profile", "tiny"], {}, "pack: not made yet"),
        (["embed", "absent.tif", "--encoder", "models:/nothing@champion", "--profile", "tiny"], {}, "models:/nothing@champion"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    done = _caco(tmp_path, *arguments, **environment)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("caco: ")
    assert expected in last
    assert "Traceback" not in done.stderr


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
