"""The workspace's pages over HTTP: the report, the model card and the data docs of one profile, and nothing else of its folder.

`python -m caco_assets.services.pages` serves them. They show text that came with foreign data, so they have an origin of their own
and run no scripts.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caco_assets.resources.same_origin import SameOrigin

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGES = {
    "report/report.html": "Report",
    "report/model_card.md": "Model card",
    "report/scorecard.json": "Scores",
    "data_docs/index.html": "Data docs",
}
"""What the index page links to, relative to the profile's folder."""
_DATA_DOCS = re.compile(r"data_docs/(?:[^/.][^/]*/)*[^/.][^/]*\.html")
_TYPES = {".html": "text/html", ".md": "text/plain", ".json": "application/json"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-popups allow-top-navigation-by-user-activation",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    # a browser shows no sandboxed page with another value
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


def find_page(root: Path, name: str) -> Path | None:
    """The file of a page.

    Args:
        root: the profile's folder.
        name: path below it, with `/`.

    Returns:
        None if the page is not one of those that are shown, does not exist, or is reached through a symbolic link.
    """
    if name not in PAGES and not _DATA_DOCS.fullmatch(name):
        return None
    file = root / name
    try:
        return file if file.is_file() and file.resolve() == root.resolve() / name else None
    except (OSError, ValueError):
        # a name that no file can have
        return None


def build_app(root: Path) -> ASGIApp:
    """The pages of the profile whose folder is `root`."""
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    def index(_: Request) -> Response:
        return HTMLResponse(_index(root), headers=HEADERS)

    def page(request: Request) -> Response:
        if (file := find_page(root, request.path_params["name"])) is None:
            return PlainTextResponse("no such page; / lists them\n", 404, HEADERS)
        return FileResponse(file, headers=HEADERS, media_type=f"{_TYPES[file.suffix]}; charset=utf-8")

    return SameOrigin(Starlette(routes=[Route("/", index), Route("/{name:path}", page)]))


def _index(root: Path) -> str:
    there = {name: title for name, title in PAGES.items() if find_page(root, name)}
    links = "".join(f'<li><a href="/{name}">{title}</a></li>' for name, title in there.items())
    title = html.escape(root.name)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body><h1>{title}</h1>'
        f"{f'<ul>{links}</ul>' if there else '<p>Nothing has been made yet.</p>'}</body></html>\n"
    )


@click.command()
@click.option("--root", type=click.Path(path_type=Path), required=True, help="The profile's folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
def main(root: Path, host: str, port: int) -> None:
    """Serve the pages of a profile."""
    import uvicorn

    uvicorn.run(build_app(root), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main()
