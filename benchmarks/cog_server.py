"""An HTTP/1.1 server of the files of a folder, with keep-alive, ranges, latency and failures: a provider on loopback.

Run as a program in a process of its own, so that it takes no time of the interpreter that is measured. It prints its port, serves
until its standard input is closed, and answers three addresses that no file has:

    /_stats                        requests, bytes, time taken and failures so far, as JSON, and the most requests open at once
    /_reset                        the same, and resets the counters
    /_fail?kinds=a,b&share=0.1&seed=0&match=B02&first=2&after=9
                                   from now on requests fail in one of these ways: a share of them, or (`first`) the first so many
                                   for each range of a file; `match`: only files whose path holds the text; `after`: so many are
                                   answered first; without `kinds`: no more failures. Chance is a matter of seed, file, range and
                                   how often it was asked for, not of the order of requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

PAGES = {
    "html": b"<!DOCTYPE html><html><body><h1>Service busy</h1></body></html>",
    "xml": b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>',
}
STATUS = {200: "OK", 206: "Partial Content", 403: "Forbidden", 404: "Not Found", 416: "Range Not Satisfiable"}
STATUS |= {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
KINDS = ("403", "429", "500", "503", "silence", "reset", "truncated", "slow", *PAGES)
"""Ways to fail. `silence`: no answer; `reset`: the connection breaks; `truncated`: half the body; `slow`: a byte now and then."""


@dataclass
class Rule:
    """Which requests fail, and how."""

    kinds: list[str]
    share: float
    first: int
    match: str
    seed: str
    after: int = 0
    """Requests that are answered before any fails."""
    asked: Counter[str] = field(default_factory=Counter)

    def pick(self, path: str, span: str) -> str | None:
        """The way in which a request fails, if it does."""
        if not self.kinds or self.match not in path:
            return None
        if self.after > 0:
            self.after -= 1
            return None
        key = f"{path} {span}"
        self.asked[key] += 1
        dice = random.Random(f"{self.seed} {key} {self.asked[key]}")
        fails = self.asked[key] <= self.first if self.first else dice.random() < self.share
        return dice.choice(self.kinds) if fails else None


class Server:
    """State of the provider."""

    def __init__(self, folder: Path, latency: float, patience: float, ranges: bool) -> None:
        self.folder, self.latency, self.patience, self.ranges = folder.resolve(), latency, patience, ranges
        self.rule = Rule([], 0.0, 0, "", "")
        self.counts: Counter[str] = Counter()
        self.open = self.peak = 0
        self.files: dict[str, int] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the other side hangs up."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.open += 1
                self.peak, start = max(self.peak, self.open), time.monotonic()
                try:
                    if not await self.answer(head.decode("latin-1"), writer):
                        break
                finally:
                    self.open -= 1
                    self.counts["busy_us"] += int(1e6 * (time.monotonic() - start))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, head: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        line, *fields = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields if text)}
        address = urlsplit(target)
        path = unquote(address.path)
        if path.startswith("/_"):
            send(writer, 200, json.dumps(self.control(path, parse_qs(address.query))).encode())
            return True
        self.counts["requests"] += 1
        self.counts[method] += 1
        await asyncio.sleep(self.latency)
        kind = self.rule.pick(path, headers.get("range", ""))
        if kind is not None:
            self.counts[f"failed {kind}"] += 1
            if kind in PAGES:
                send(writer, 200, PAGES[kind])
                return True
            if kind.isdigit():
                send(writer, int(kind), b"no", **({"Retry-After": "0"} if kind == "429" else {}))
                return True
            if kind == "silence":
                await asyncio.sleep(self.patience)
            if kind in ("silence", "reset"):
                writer.transport.abort()
                return False
        return await self.file(path, method, headers, writer, kind)

    async def file(self, path: str, method: str, headers: dict[str, str], writer: asyncio.StreamWriter, kind: str | None) -> bool:
        """Answer with the bytes of a file."""
        handle = self.handle(path)
        if handle is None:
            send(writer, 404, b"no such file")
            return True
        size = os.fstat(handle).st_size
        start, stop, status = 0, size, 200
        if self.ranges and (asked := headers.get("range", "")).startswith("bytes="):
            first, _, last = asked[6:].partition("-")
            start, stop, status = int(first), min(int(last) + 1 if last else size, size), 206
            if start >= size:
                send(writer, 416, b"", **{"Content-Range": f"bytes */{size}"})
                return True
        body = b"" if method == "HEAD" else os.pread(handle, stop - start, start)
        more = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if status == 206 else {}
        more |= {"Accept-Ranges": "bytes", "Content-Type": "image/tiff"}
        if kind == "truncated":
            send(writer, status, body[: len(body) // 2], length=stop - start, **more)
            await writer.drain()
            return False
        if kind == "slow":
            send(writer, status, body[:1], length=stop - start, **more)
            for at in range(1, len(body)):
                await asyncio.sleep(self.patience / 5)
                writer.write(body[at : at + 1])
                await writer.drain()
            return True
        self.counts["bytes"] += len(body)
        send(writer, status, body, length=stop - start, **more)
        await writer.drain()
        return True

    def handle(self, path: str) -> int | None:
        """Descriptor of an open file below the folder."""
        if path not in self.files:
            # `/~7/a.tif` is `/a.tif` under a name that no client has in its memory
            parts = [part for part in path.split("/") if part and not part.startswith("~")]
            file = self.folder.joinpath(*parts).resolve()
            if not file.is_file() or self.folder not in file.parents:
                return None
            self.files[path] = os.open(file, os.O_RDONLY)
        return self.files[path]

    def control(self, path: str, query: dict[str, list[str]]) -> dict[str, int]:
        """Answer what no file has."""
        stats = {**self.counts, "peak": self.peak}
        if path == "/_reset":
            self.counts.clear()
            self.peak = 0
        elif path == "/_fail":
            one = {name: values[0] for name, values in query.items()}
            kinds = [kind for kind in one.get("kinds", "").split(",") if kind]
            first, match = int(one.get("first", 0)), one.get("match", "")
            self.rule = Rule(kinds, float(one.get("share", 1)), first, match, one.get("seed", "0"), int(one.get("after", 0)))
        return stats


def send(writer: asyncio.StreamWriter, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
    """Write an answer."""
    lines = [f"HTTP/1.1 {status} {STATUS[status]}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)


@dataclass(frozen=True)
class Provider:
    """A running server, seen from outside."""

    address: str

    def fail(self, **rule: object) -> None:
        """Set how requests fail from now on; without arguments they do not."""
        self._ask("_fail", **rule)

    def stats(self) -> Counter[str]:
        """What was counted since the last call."""
        return Counter(self._ask("_reset"))

    def _ask(self, name: str, **query: object) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.address}/{name}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)


@contextmanager
def running(folder: Path, **options: object) -> Iterator[Provider]:
    """Start the server in a process of its own, with the program's options, and stop it at the end."""
    flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in options.items()]
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Provider(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()


async def serve(server: Server) -> None:
    """Serve until standard input ends: with the process that started this one, whatever ends it."""
    listener = await asyncio.start_server(server.connection, "127.0.0.1", 0, limit=1 << 16)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds of silence; a slow body has a byte five times in it")
    parser.add_argument("--no-ranges", action="store_true", help="send the whole file whatever is asked for")
    given = parser.parse_args()
    asyncio.run(serve(Server(given.folder, given.latency, given.patience, not given.no_ranges)))


if __name__ == "__main__":
    main()
