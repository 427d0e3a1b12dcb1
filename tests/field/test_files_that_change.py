"""A provider that replaces a file while it is read: never the index of one version with the blocks of another."""

import re
from pathlib import Path

import numpy as np
import pytest
from scripted_server import Asked, Reply

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.cog_reader import RemoteFiles
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy

LEFT, TOP = 498_000.0, 4_651_020.0
GRID = Grid(32631, LEFT, TOP, 64, 10.0)
HASTE = RetryPolicy(attempts=2, first_wait_s=0.01, longest_wait_s=0.02, silence_s=1.0)


class Versions:
    """Serves `file` with the headers of the version that `current` names; counts the requests."""

    def __init__(self, files: dict[str, bytes], headers: dict[str, dict[str, str]], order: list[str]) -> None:
        self._files, self._headers, self._order, self.requests = files, headers, order, 0

    def __call__(self, asked: Asked) -> Reply:
        name = self._order[min(self.requests, len(self._order) - 1)]
        self.requests += 1
        whole = self._files[name]
        start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers["Range"]).groups())
        part = whole[start : stop + 1]
        place = f"bytes {start}-{start + len(part) - 1}/{len(whole)}"
        return Reply(206, {"Content-Range": place, **self._headers[name]}, part)


@pytest.fixture
def versions(tmp_path: Path, tif) -> dict[str, bytes]:
    """Two files of one size and layout with other pixels."""
    found = {}
    for name, value in (("old", 1000), ("new", 2000)):
        tif(tmp_path / f"{name}.tif", np.full((1, 96, 96), value, np.uint16), LEFT, TOP, 10, compress=None)
        found[name] = (tmp_path / f"{name}.tif").read_bytes()
    assert len(found["old"]) == len(found["new"])
    return found


DATED = {"old": {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}, "new": {"Last-Modified": "Tue, 03 Nov 2026 10:00:00 GMT"}}
TAGGED = {"old": {"ETag": '"1"'}, "new": {"ETag": '"2"'}}
BOTH = {name: {**DATED[name], **TAGGED[name]} for name in DATED}


def read(server_url: str) -> np.ndarray:
    with Fetcher(1, patience=HASTE) as fetcher:
        href = f"{server_url}/a.tif"
        with RemoteFiles(fetcher, str).open({href: [1]}, [GRID]) as opened:
            if isinstance(opened[href], UnreadableError):
                raise opened[href]
            return opened[href].read([1], GRID, nearest=False, nodata=0)


@pytest.mark.parametrize("headers", [TAGGED, DATED, BOTH], ids=["tag", "date", "both"])
def test_a_file_that_is_replaced_after_its_index_was_read_is_read_again(scripted, versions, headers, logged):
    answering = Versions(versions, headers, ["old", "new"])
    said = logged()
    assert (read(scripted(answering).url) == 2000).all()
    assert said == ["a.tif: the file changed while it was read; it is read again"]


def test_a_file_that_stays_is_read_once(scripted, versions):
    answering = Versions(versions, BOTH, ["old"])
    assert (read(scripted(answering).url) == 1000).all()
    assert answering.requests <= 3


def test_two_machines_with_tags_of_their_own_serve_one_file(scripted, versions):
    headers = {"old": {**DATED["old"], "ETag": '"a"'}, "twin": {**DATED["old"], "ETag": '"b"'}}
    answering = Versions({"old": versions["old"], "twin": versions["old"]}, headers, ["old", "twin"])
    assert (read(scripted(answering).url) == 1000).all()
    assert answering.requests <= 3


def test_a_file_that_changes_at_every_request_is_refused(scripted, versions):
    order = ["old", "new"] * 20
    with pytest.raises(UnreadableError, match=r"a\.tif: the file changed while it was read"):
        read(scripted(Versions(versions, BOTH, order)).url)
