"""Where a Redis or Valkey is, and how to be let in."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from ..errors import ConfigurationError

_WITH_TLS: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_PORT: Final = 6379


class ServerURL(msgspec.Struct, frozen=True, kw_only=True):
    """A URL, taken apart. Its repr does not show the password."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None
    database: int

    def __repr__(self) -> str:
        return f"ServerURL({self.host}:{self.port}/{self.database})"


def parse_url(url: object) -> ServerURL:
    """Take a URL apart: ``redis://user:password@host:port/database``.

    Raises:
        ConfigurationError: It is not such a URL. It is not shown, because it may hold a password.
    """
    if isinstance(url, str):
        try:
            parts = urlsplit(url.strip())
            if parts.scheme in _WITH_TLS and parts.hostname and not (parts.query or parts.fragment):
                return ServerURL(
                    host=parts.hostname,
                    port=parts.port or _PORT,
                    tls=_WITH_TLS[parts.scheme],
                    username=_decoded(parts.username),
                    password=_decoded(parts.password),
                    database=int(parts.path.strip("/") or 0),
                )
        except ValueError:  # a port or a database that is no number, brackets that do not match
            pass
    raise ConfigurationError(
        "The relay's url must be like 'redis://user:password@host:6379/0'. It begins with "
        f"{', '.join(_WITH_TLS)}, and has no parameters."
    )


def _decoded(part: str | None) -> str | None:
    return unquote(part) if part else None
