"""ASGI middleware that serves only requests for a known host name that no page of another origin has sent.

A server on loopback has no login, yet every page that a browser has open can send it requests. They are recognized by the host name
(an attacker's DNS server may point a name at this machine, "DNS rebinding") and by the headers `Origin` and `Sec-Fetch-Site`, which
a page cannot set. Programs send neither header and are served.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

ALLOWED_HOSTS = "CACO_ALLOWED_HOSTS"
"""Variable with the host names, separated by commas, under which servers are reached besides loopback's."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""No other origin frames an answer, opens it with a handle, or embeds it."""


def allowed_hosts() -> frozenset[str]:
    """Names of loopback and those of `CACO_ALLOWED_HOSTS`, in lower case and without ports."""
    more = os.environ.get(ALLOWED_HOSTS, "").split(",")
    return frozenset({*LOOPBACK, *(name for each in more if (name := _name(each.strip())))})


class SameOrigin:
    """Answers 403 to a request of another origin or for another host, HTTP and WebSocket alike."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = allowed_hosts() if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if (reason := refusal(scope, self.hosts)) is not None:
            logger.warning(f"{scope.get('method', 'WebSocket')} {scope['path']}: refused: {reason}")
            if scope["type"] == "websocket":
                # before it is accepted: the server answers 403
                await send({"type": "websocket.close", "code": 1008, "reason": reason})
            else:
                await PlainTextResponse(f"refused: {reason}\n", 403, _HEADERS)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def refusal(scope: Scope, hosts: Collection[str]) -> str | None:
    """Why a request is not served; None: it is."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if _name(host) not in hosts:
        known = ", ".join(sorted(hosts))
        return f"the host {host[:100]!r} is not one of {known} (`caco up --allow-host NAME` adds the name of a proxy)"
    origins = headers.getlist("origin")
    if any(origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()) for origin in origins):
        return f"a page of another origin sent it ({origins[0][:100]})"
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not _is_link(scope, headers):
        return f"a page of another origin sent it ({site[:100]})"
    return None


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Whether a user followed a link: a whole page is loaded in its own tab, which the page with the link cannot read."""
    asked = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return scope.get("method") in ("GET", "HEAD") and asked == ("navigate", "document")


def _name(host: str) -> str | None:
    """The name in a `Host` header, in lower case and without a port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
