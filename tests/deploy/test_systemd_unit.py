"""The systemd unit is valid and starts a command that exists."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from caco_assets.cli import main

pytestmark = pytest.mark.deploy

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "caco@.service"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here (Debian: systemd)")
    program = tmp_path / ".venv" / "bin" / "caco"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "caco-test.service"
    unit.write_text(UNIT.read_text().replace("%f", str(tmp_path)))
    verify = ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unit.write_text(unit.read_text().replace(str(program), str(tmp_path / "absent")))
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0


def test_the_unit_stops_caco_up_alone_and_leaves_it_time() -> None:
    text = UNIT.read_text()
    assert "ExecStart=%f/.venv/bin/caco up\n" in text
    assert "up" in main.commands
    # SIGTERM to the processes of `caco up` as well would end a training before the servers
    assert "KillMode=mixed" in text
    assert "Restart=on-failure" in text
