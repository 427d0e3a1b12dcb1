"""Single chips out of an archive on a web server and in an object store: what is asked for, and how often."""

import functools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.reader import ArchiveReader
from caco_assets.imagery.archive.shard import TAR, read_index

PLACE = ("L0000012", 1, 0)
"""Chip number 2 of shard 1."""


class Server(ThreadingHTTPServer):
    """Serves a folder, answers ranges unless told not to, and keeps (method, path, range) of each request."""

    ranged = True

    def __init__(self, folder: Path) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.seen.append(("GET", self.path, asked))
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        path = Path(self.translate_path(self.path))
        if match is None or not path.is_file() or not self.server.ranged:
            super().do_GET()
            return
        start, last = int(match[1]), int(match[2])
        data = path.read_bytes()
        part = data[start : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def do_HEAD(self) -> None:
        self.server.seen.append(("HEAD", self.path, None))
        super().do_HEAD()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def with_locations(archive: Path) -> Path:
    """`locations.parquet` beside the archive, as the sampling writes it (here: the columns that matter)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"location_id": ["L0000003", "L0000012"], "shard": pa.array([0, 1], pa.int32()), "lon": [2.8, 2.8]})
    pq.write_table(table, archive.parent / "locations.parquet")
    return archive


@pytest.fixture
def server(small_archive) -> Iterator[Server]:
    with_locations(small_archive)
    served = Server(small_archive.parent)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def test_one_chip_is_one_ranged_read_after_the_index(server, small_archive, pixels_of):
    reader = ArchiveReader(f"{server.address}/archive")
    assert (reader.read(*PLACE) == pixels_of(12)).all()
    row = read_index(small_archive / "shard=0001").to_pylist()[2]
    chip = ("GET", "/archive/shard%3D0001/chips.tar", f"bytes={row['offset']}-{row['offset'] + row['length'] - 1}")
    index = [("GET", "/locations.parquet", None), ("GET", "/archive/shard%3D0001/chips.parquet", None)]
    assert [(method, path.replace("=", "%3D"), asked) for method, path, asked in server.seen] == [*index, chip]


def test_every_further_chip_is_exactly_one_request_of_exactly_its_bytes(server, pixels_of):
    reader = ArchiveReader(f"{server.address}/archive")
    reader.chips(0)
    reader.chips(1)
    server.seen.clear()
    chips = [(shard, *key) for shard in (0, 1) for key in reader.chips(shard)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda chip: reader.read(*chip[1:], shard=chip[0]), chips))
    for number, pixels in enumerate(found):
        assert (pixels == pixels_of(10 * (number // 4) + number % 4)).all()
    assert len(server.seen) == len(chips) == 8
    assert all(method == "GET" and asked for method, _, asked in server.seen)
    assert len(set(server.seen)) == 8


def test_a_reader_that_is_told_the_shard_needs_no_locations(server, pixels_of):
    reader = ArchiveReader(f"{server.address}/archive")
    assert (reader.read(*PLACE, shard=1, bands=("B04",)) == pixels_of(12)[2:]).all()
    assert [path for _, path, _ in server.seen if "locations" in path] == []


def test_a_folder_on_disk_is_read_by_the_same_reader(small_archive, pixels_of):
    reader = ArchiveReader(with_locations(small_archive))
    assert (reader.read(*PLACE) == pixels_of(12)).all()
    moved = small_archive.parent.rename(small_archive.parent.with_name("moved"))
    away = ArchiveReader(moved / "archive", moved / "locations.parquet")
    assert (away.read("L0000003", 0, 0) == pixels_of(0)).all()


def test_what_is_not_there_is_said_in_one_line(small_archive):
    reader = ArchiveReader(with_locations(small_archive))
    with pytest.raises(UserError, match=r"L0000012, period 1, season 1: no such chip in shard=0001"):
        reader.read("L0000012", 1, 1)
    with pytest.raises(UserError, match=r"L9: no such place in locations.parquet"):
        reader.read("L9", 0, 0)
    with pytest.raises(UserError, match=r"chips.parquet: not there; name the folder that holds the shards"):
        reader.read("L0000012", 0, 0, shard=4)
    (small_archive / "shard=0001" / TAR).unlink()
    with pytest.raises(UserError, match=r"chips.tar: not there, though its index is"):
        reader.read(*PLACE)


def test_bytes_that_are_not_the_archived_ones_are_refused(small_archive):
    shard = small_archive / "shard=0001"
    row = read_index(shard).to_pylist()[2]
    with (shard / TAR).open("r+b") as stream:
        stream.seek(row["offset"] + 5)
        stream.write(b"other")
    with pytest.raises(UserError, match=r"L0000012/p1s0 is not what its index says"):
        ArchiveReader(small_archive).read(*PLACE, shard=1)


def test_a_server_that_ignores_ranges_is_named_as_the_cause(server):
    server.ranged = False
    with pytest.raises(UserError, match=r"does its server answer ranged requests\?"):
        ArchiveReader(f"{server.address}/archive").read(*PLACE)


@pytest.mark.integration
def test_an_object_store_gets_one_ranged_request_for_a_chip(small_archive, pixels_of, s3_api, monkeypatch, caplog):
    """A real S3 API on loopback, whose log says what it was asked."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_api)
    client = boto3.client("s3", endpoint_url=s3_api)
    client.create_bucket(Bucket="sets")
    for path in with_locations(small_archive).parent.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "sets", path.relative_to(small_archive.parent).as_posix())
    reader = ArchiveReader("s3://sets/archive")
    assert (reader.read(*PLACE) == pixels_of(12)).all()
    with caplog.at_level("INFO", "werkzeug"):
        caplog.clear()
        assert (reader.read("L0000012", 1, 2) == pixels_of(13)).all()
    (asked,) = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert "GET /sets/archive/shard=0001/chips.tar" in asked
    assert " 206 " in asked


def test_gdal_reads_a_chip_as_a_part_of_its_tar(small_archive, pixels_of):
    """What any GDAL program can do without our reader."""
    import rasterio

    row = read_index(small_archive / "shard=0001").to_pylist()[2]
    with rasterio.open(f"/vsisubfile/{row['offset']}_{row['length']},{small_archive}/shard=0001/{TAR}") as raster:
        assert (raster.read() == pixels_of(12)).all()
