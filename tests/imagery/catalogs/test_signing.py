"""Tokens from a real token server on loopback, S3 from a real S3 server on loopback."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import rasterio

from caco_assets.core.errors import UserError
from caco_assets.core.redact import without_secrets
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.signing import TokenSigner, s3_path, s3_signer, signer
from caco_assets.imagery.reading.gdal import GDAL_OPTIONS, UnreadableError, open_raster
from caco_assets.settings import StacApiSource, load_settings

BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/35/M/NM/B04.tif"


class TokenServer:
    """Issues numbered tokens that live as long as it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.life_s = 3600.0
        self.down = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "80")
                self.end_headers()

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.keys.append(self.headers["Ocp-Apim-Subscription-Key"])
                time.sleep(0.02)
                expiry = datetime.now(UTC) + timedelta(seconds=outer.life_s)
                token = {"msft:expiry": expiry.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "token": f"st=1&sig=secret{len(outer.asked)}"}
                body = b"{}" if outer.down else json.dumps(token).encode()
                self.send_response(503 if outer.down else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_port}/api/sas/v1/token"
        self._thread = threading.Thread(target=self._httpd.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


@pytest.fixture
def tokens(monkeypatch, tmp_path):
    server = TokenServer()
    monkeypatch.setenv("PC_SDK_SAS_URL", server.url)
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "my-key")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield server
    server.stop()


def quick() -> JsonClient:
    return JsonClient(attempts=2, seed=0, sleep=lambda _: None)


@pytest.mark.integration
def test_an_address_gets_the_token_of_its_container(tokens):
    sign = TokenSigner()
    assert sign(BLOB) == f"{BLOB}?st=1&sig=secret1"
    assert sign(BLOB.replace("B04", "B03")).endswith("B03.tif?st=1&sig=secret1")
    assert sign("https://other.blob.core.windows.net/box/x.tif").endswith("sig=secret2")
    assert tokens.asked == ["/api/sas/v1/token/sentinel2l2a01/sentinel2-l2", "/api/sas/v1/token/other/box"]
    assert tokens.keys == ["my-key", "my-key"]


@pytest.mark.integration
def test_what_needs_no_token_stays_as_it_is(tokens):
    sign = TokenSigner()
    public = "https://ai4edatasetspublicassets.blob.core.windows.net/x/y.png"
    for href in ("https://a.example/B04.tif", "./B04.tif", public, f"{BLOB}?sig=mine"):
        assert sign(href) == href
    assert tokens.asked == []


@pytest.mark.integration
def test_many_threads_wait_for_one_request(tokens):
    sign = TokenSigner()
    with ThreadPoolExecutor(8) as pool:
        signed = set(pool.map(sign, [BLOB] * 40))
    assert signed == {f"{BLOB}?st=1&sig=secret1"}
    assert len(tokens.asked) == 1


@pytest.mark.integration
def test_a_token_is_renewed_before_it_expires(tokens):
    tokens.life_s = 1.0
    sign = TokenSigner()
    start = time.monotonic()
    seen = []
    while time.monotonic() - start < 1.8:
        seen.append(sign(BLOB))
        time.sleep(0.05)
    assert 3 <= len(tokens.asked) <= 5, "at half the life of so short a one"
    assert seen[-1] != seen[0]


@pytest.mark.integration
def test_a_long_token_is_renewed_minutes_before_its_end(tokens):
    tokens.life_s = 320.0
    sign = TokenSigner()
    sign(BLOB)
    sign(BLOB)
    assert len(tokens.asked) == 1
    (token,) = sign._tokens.values()
    assert timedelta(seconds=155) < token.expiry - token.renew < timedelta(seconds=161)
    tokens.life_s = 3600.0
    other = TokenSigner()
    other(BLOB)
    (token,) = other._tokens.values()
    assert token.expiry - token.renew == timedelta(minutes=5)


@pytest.mark.integration
def test_while_the_token_server_is_down_the_old_token_serves_and_then_there_is_one_line(logged, tokens):
    said = logged()
    sign = TokenSigner(quick())
    tokens.life_s = 62.0
    first = sign(BLOB)
    (container,) = sign._tokens
    old = sign._tokens[container]
    tokens.down = True
    sign._tokens[container] = type(old)(old.text, datetime.now(UTC), old.expiry)
    assert sign(BLOB) == first
    assert "the present token remains valid until" in said[-1]
    sign._tokens[container] = type(old)(old.text, datetime.now(UTC), datetime.now(UTC))
    with pytest.raises(UserError, match=r"/token/sentinel2l2a01/sentinel2-l2: answers 503") as caught:
        sign(BLOB)
    assert "secret" not in "".join([*said, str(caught.value)])


def test_messages_lose_what_is_secret():
    text = f"HTTP 403: '{BLOB}?st=1&sig=secret1' and https://me:hunter2@a.example/x?key=hunter2 failed"
    assert without_secrets(text) == f"HTTP 403: '{BLOB}' and https://a.example/x failed"
    assert without_secrets("Is it clear? 50% of the chip: no") == "Is it clear? 50% of the chip: no"


@pytest.mark.integration
def test_what_gdal_says_of_a_signed_file_is_told_without_the_token(tokens):
    """The token server answers with JSON whatever the path: no picture, so GDAL complains, naming the whole address."""
    href = f"{tokens.url}/B04.jp2?st=1&sig=secret1"
    with (
        rasterio.Env(**GDAL_OPTIONS),
        pytest.raises(UnreadableError, match=r"B04\.jp2' not recognized") as caught,
        open_raster(href),
    ):
        pass
    assert "secret" not in caught.value.detail


def test_the_profile_decides_who_signs(tmp_path, monkeypatch):
    settings = load_settings("tiny", home=tmp_path)
    assert signer(settings)("./a.tif") == "./a.tif"
    source = StacApiSource.model_validate({"provider": "cdse"})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_S3_ENDPOINT: not set in the environment"):
        signer(settings.model_copy(update={"imagery": settings.imagery.model_copy(update={"source": source})}))


def test_s3_addresses_are_written_as_gdal_reads_them():
    assert s3_path("s3://eodata/Sentinel-2/MSI/B04.jp2") == "/vsis3/eodata/Sentinel-2/MSI/B04.jp2"
    assert s3_path("https://a.example/B04.tif") == "https://a.example/B04.tif"


@pytest.mark.integration
def test_files_in_an_s3_store_are_read_with_the_keys_of_the_environment(tmp_path, tif, monkeypatch):
    import boto3
    import numpy as np
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    try:
        host, port = store.get_host_and_port()
        options = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_S3_ENDPOINT": f"{host}:{port}"}
        for name, value in {**options, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        tif(tmp_path / "B04.tif", np.full((1, 64, 64), 7, np.uint16), 500_000, 4_600_000, 10)
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="eodata")
        client.upload_file(str(tmp_path / "B04.tif"), "eodata", "Sentinel-2/B04.tif")
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(s3_signer()("s3://eodata/Sentinel-2/B04.tif")) as raster:
            assert raster.read().max() == 7
    finally:
        store.stop()
