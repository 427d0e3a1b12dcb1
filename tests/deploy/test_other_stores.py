"""The archive in the stores of other providers, each asked over its own protocol: Azure's and Google's emulators on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caco_assets.core import object_store
from caco_assets.imagery.archive import tar_store
from caco_assets.imagery.archive.shard import pack_tar

pytestmark = pytest.mark.deploy

AZURE, GOOGLE = "azurite@3.35.0", "gcp-storage-emulator==2026.7.19"
ACCOUNT = "devstoreaccount1"
# the emulator's own, which its makers publish; no account has it
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, f"the emulator has ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "the emulator does not listen"
        time.sleep(0.2)


def running(command: list[str], port: int, folder: Path, **environ: str) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **environ}, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not shutil.which("npm"):
        pytest.skip("no npm here (Debian: npm): Azure's emulator cannot be fetched")
    command = ["npm", "install", "--prefix", str(tmp_path), "--no-audit", "--no-fund", "--ignore-scripts", AZURE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"{AZURE} could not be fetched from npm: {done.stderr[-200:]}")
    port = free_port()
    quiet = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    program = str(tmp_path / "node_modules" / ".bin" / "azurite-blob")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
    for _ in running([program, *quiet, "--blobHost", "127.0.0.1", "--blobPort", str(port)], port, tmp_path):
        object_store._client(object_store._key("az://sets/x")[0]).create_dir("sets")
        yield "az://sets/archive"


@pytest.fixture
def gs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(tmp_path / "google"), GOOGLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"{GOOGLE} could not be fetched: {done.stderr[-200:]}")
    port = free_port()
    line = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", "sets"]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    # it serves one request at a time, and our readers ask for several
    code = "import http.server as h; h.HTTPServer = h.ThreadingHTTPServer; from gcp_storage_emulator.__main__ import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, *line]
    for _ in running(command, port, tmp_path, PYTHONPATH=str(tmp_path / "google")):
        yield "gs://sets/archive"


@pytest.mark.parametrize("kind", ["az", "gs"])
def test_a_tar_is_written_as_a_stream_and_read_by_ranges(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(kind)
    # more than one part of an upload
    chips = [(f"L{k:07d}/p0s0.tif", os.urandom(400_000)) for k in range(40)]
    shard = tmp_path / "shard"
    shard.mkdir()
    ranges = tar_store.store_tar(shard, f"{root}/shard=0000", lambda stream: pack_tar(stream, chips))
    far = tar_store.pointer(shard)
    assert far
    assert object_store.size(far.address) == far.bytes
    rows = [{"offset": offset, "length": length} for offset, length, _ in ranges]
    assert list(tar_store.read_members(shard, rows)) == [data for _, data in chips]
    with tar_store.open_tar(shard) as stream:
        stream.seek(rows[17]["offset"])
        assert stream.read(rows[17]["length"]) == chips[17][1]
    with pytest.raises(FileNotFoundError):
        object_store.read(f"{root}/nothing")
    with pytest.raises(FileNotFoundError):
        object_store.read_range(f"{root}/nothing", 0, 10)
