"""Dagster's web server behind `SameOrigin`; `python -m` of this module takes the options of `dagster-webserver`.

By itself Dagster answers every page that a browser has open: it has no login, serves any host name and executes mutations that a
link holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster_webserver.app
import dagster_webserver.cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

from caco_assets.resources.same_origin import SameOrigin

if TYPE_CHECKING:
    from starlette.requests import Request


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's web server, for its own pages and for programs only."""

    def build_middleware(self) -> list[Middleware]:
        """Dagster's own, behind the check of host and origin."""
        return [Middleware(SameOrigin), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> HTMLResponse | PlainTextResponse | JSONResponse:
        """Queries come in a JSON body by POST, which no page of another origin can send; a link can carry the others.

        Dagster's own pages send the name of the query as the parameter `op` beside the body.
        """
        is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        if "query" in request.query_params or (request.method == "POST" and not is_json):
            return PlainTextResponse("refused: send the query as application/json by POST\n", 400)
        return await super().graphql_http_endpoint(request)


def main() -> None:
    """Run the server with the arguments of this process."""
    # the name by which Dagster's own command finds the class
    dagster_webserver.app.DagsterWebserver = GuardedWebserver  # pyright: ignore[reportPrivateImportUsage]
    dagster_webserver.cli.main()


if __name__ == "__main__":
    main()
