"""Signs the addresses of files: `sign(href) -> href`, called each time a file is opened."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import requests

from caco_assets.core.errors import UserError
from caco_assets.settings import Settings, StacApiSource

if TYPE_CHECKING:
    from caco_assets.imagery.catalogs.json_client import JsonClient

logger = logging.getLogger(__name__)

Sign = Callable[[str], str]

SPARE = timedelta(minutes=5)
"""A token with less time left is renewed (one that never had so much, at half its life): a scene's files take time to read."""
PUBLIC_HOST = "ai4edatasetspublicassets.blob.core.windows.net"
S3_SETTINGS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_S3_ENDPOINT")


def signer(settings: Settings) -> Sign:
    """The function that makes the hrefs of the profile's source readable; thread-safe.

    Raises:
        UserError: the source needs keys that the environment does not hold.
    """
    source = settings.imagery.source
    kind = source.signer if isinstance(source, StacApiSource) else "none"
    return {"none": lambda: str, "planetary_computer": lambda: TokenSigner(), "s3": s3_signer}[kind]()


@dataclass(frozen=True)
class _Token:
    text: str
    renew: datetime
    """When to request another."""
    expiry: datetime


class TokenSigner:
    """Signs Azure blob addresses of the Planetary Computer with a token for each container.

    The provider's own package keeps a token until a minute before its end and lets each thread fetch its own; here threads wait for
    one request, and a valid token stays in use when its renewal fails. Endpoint and key come from that package's settings
    (`PC_SDK_SAS_URL`, `PC_SDK_SUBSCRIPTION_KEY`).
    """

    def __init__(self, client: JsonClient | None = None) -> None:
        from caco_assets.imagery.catalogs.json_client import JsonClient

        with warnings.catch_warnings():
            # the package's models are written for an older pydantic
            warnings.simplefilter("ignore", DeprecationWarning)
            from planetary_computer.sas import BLOB_STORAGE_DOMAIN
            from planetary_computer.settings import Settings as Sdk
            from planetary_computer.utils import parse_blob_url
        self._domain, self._place = BLOB_STORAGE_DOMAIN, parse_blob_url
        sdk = Sdk()
        self._url, self._key = str(sdk.sas_url).rstrip("/"), sdk.subscription_key
        self._client = client or JsonClient()
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    def __call__(self, href: str) -> str:
        """The address with a token; one that needs none, or has one, unchanged.

        Raises:
            UserError: the provider issues no token.
        """
        parts = urlparse(href)
        if not (parts.hostname or "").endswith(self._domain) or parts.hostname == PUBLIC_HOST or "sig=" in parts.query:
            return href
        account, container = self._place(parts)
        return f"{href}{'&' if parts.query else '?'}{self._token(f'{account}/{container}')}"

    def _token(self, container: str) -> str:
        with self._lock:
            fetching = self._fetching.setdefault(container, threading.Lock())
        known = self._tokens.get(container)
        if known is None or datetime.now(UTC) >= known.renew:
            with fetching:
                known = self._tokens.get(container)
                if known is None or datetime.now(UTC) >= known.renew:
                    known = self._tokens[container] = self._fetch(container, known)
        return known.text

    def _fetch(self, container: str, old: _Token | None) -> _Token:
        headers = {"Ocp-Apim-Subscription-Key": self._key} if self._key else {}
        now = datetime.now(UTC)
        try:
            answer = self._client.ask(requests.Request("GET", f"{self._url}/{container}", headers=headers))
            expiry = datetime.fromisoformat(answer["msft:expiry"]).astimezone(UTC)
            return _Token(_plain(answer["token"]), expiry - min(SPARE, (expiry - now) / 2), expiry)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{self._url}/{container}: gives no token ({type(error).__name__}); try again later") from error
        except UserError as error:
            if old is None or datetime.now(UTC) >= old.expiry - timedelta(seconds=30):
                raise
            logger.info(f"{error}; the present token remains valid until {old.expiry:%H:%M} UTC")
            return _Token(old.text, datetime.now(UTC) + timedelta(seconds=30), old.expiry)


def _plain(token: object) -> str:
    """A token as part of an address.

    Raises:
        ValueError: it is not text that an address may hold.
    """
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError("token")
    return token


def s3_signer() -> Sign:
    """Makes `s3://bucket/key` readable for GDAL, which takes keys and endpoint from the environment itself.

    Raises:
        UserError: they are missing.
    """
    absent = [name for name in S3_SETTINGS if not os.environ.get(name)]
    if absent:
        raise UserError(
            f"{', '.join(absent)}: not set in the environment; files in an S3 store need them (CDSE: the keys of your account, "
            "AWS_S3_ENDPOINT=eodata.dataspace.copernicus.eu, AWS_VIRTUAL_HOSTING=FALSE)"
        )
    return s3_path


def s3_path(href: str) -> str:
    """`s3://bucket/key` as GDAL reads it."""
    return f"/vsis3/{href.removeprefix('s3://')}" if href.startswith("s3://") else href
