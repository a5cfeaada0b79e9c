"""Where requests go and how answers are read: everything that is not part of a request's body."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

import httpx
import msgspec

from .errors import ConfigurationError, WriterError
from .numbers import check_count, check_positive
from .protocol.parsing import DEFAULT_MAX_CHOICES, DEFAULT_MAX_DEPTH, DEFAULT_MAX_TOOL_CALLS
from .protocol.sse import DEFAULT_MAX_EVENT_BYTES
from .telemetry.observer import ObserverArgument, Observers, observers_of

DEFAULT_BASE_URL: Final = "https://api.writer.com"
DEFAULT_PATH: Final = "/v1/chat"
DEFAULT_MAX_CONNECTIONS: Final = 1000


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise ConfigurationError(f"{name} must be a {expected.__name__}, not {value!r}.")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits in seconds; None means no limit. Each has an error of its own.

    Attributes:
        connect: The time to make a connection, TLS included.
        first_content: The time from sending the request to the first content: text, reasoning, a
            tool call, a refusal. Keep-alives and empty chunks do not count as content. The time
            while nobody reads the stream does not count.
        idle: The time between two chunks, once content has begun. Keep-alives are not chunks. This
            limit is enforced with a tolerance of up to 1.6 %.
        total: The time until the answer is complete, retries and their waits included.
    """

    connect: float | None = 5.0
    first_content: float | None = 180.0
    idle: float | None = 180.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_positive(
                f"Timeouts.{name}", getattr(self, name), ConfigurationError, optional=True
            )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on what a server can make you store or wait for.

    Attributes:
        max_event_bytes: The maximum length of a line, and of the data of one event.
        max_depth: How deeply the JSON of a chunk may be nested, in levels.
        max_answer_bytes: The maximum size of an answer, in bytes after decompression; None means
            no limit.
        max_choices: How many choices an answer may hold.
        max_tool_calls: How many tool calls an answer may hold.
        max_error_bytes: How many bytes of an error's body are read.
        error_body_time: How long reading an error's body may take, in seconds.
        drain_bytes: How many bytes are read after the end, so that the connection can be reused.
        drain_time: How long that may take, in seconds.
        cleanup_time: How long closing a response may take, in seconds.
        slow_consumer_time: After how many seconds the log names a subscriber that makes its stream
            wait.
    """

    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    max_depth: int = DEFAULT_MAX_DEPTH
    max_answer_bytes: int | None = 64 * 1024 * 1024
    max_choices: int = DEFAULT_MAX_CHOICES
    max_tool_calls: int = DEFAULT_MAX_TOOL_CALLS
    max_error_bytes: int = 64 * 1024
    error_body_time: float = 5.0
    drain_bytes: int = 64 * 1024
    drain_time: float = 0.25
    cleanup_time: float = 2.0
    slow_consumer_time: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check = check_positive if name.endswith("_time") else check_count
            optional = name == "max_answer_bytes"
            check(f"Limits.{name}", getattr(self, name), ConfigurationError, optional=optional)


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one stream is read, whatever it comes from; ``Configuration`` says what these mean.

    For ``observer``, one or several may be given; they become ``Observers``.
    """

    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    end_grace: float = 5.0
    require_finish: bool = True
    observer: Observers | None = None

    def __post_init__(self) -> None:
        _check_type("timeouts", self.timeouts, Timeouts)
        _check_type("limits", self.limits, Limits)
        _check_type("require_finish", self.require_finish, bool)
        check_positive("end_grace", self.end_grace, ConfigurationError)
        msgspec.structs.force_setattr(self, "observer", observers_of(self.observer))


class ReadingConfiguration(TypedDict, total=False):
    """What ``StreamSettings`` says, as keyword arguments."""

    timeouts: Timeouts
    limits: Limits
    end_grace: float
    require_finish: bool
    observer: ObserverArgument


class Configuration(ReadingConfiguration, total=False):
    """Where a request goes and how its answer is read, as keyword arguments.

    Attributes:
        api_key: The API key; by default the environment variable ``WRITER_API_KEY``.
        base_url: The server, without the path; by default the environment variable
            ``WRITER_BASE_URL``, or else ``https://api.writer.com``.
        path: The path; by default ``/v1/chat``. It is ``/v1/chat/completions`` on most other
            servers.
        headers: Headers for every request. They replace the library's own of the same name; None
            as a value removes one.
        max_retries: How often a request is sent again if it failed before its answer began; 2 by
            default.
        timeouts: Time limits.
        limits: Limits on what a server can make you store or wait for.
        end_grace: For how many seconds at most reading goes on once the answer is complete, to
            receive the usage and the end of the response; 5 by default.
        require_finish: Whether an answer without a finish reason and without ``[DONE]`` is an
            error; True by default. Pass False for servers that never send either.
        observer: One ``StreamObserver`` or several, which are notified of what the streams do.
    """

    api_key: str | None
    base_url: str | None
    path: str | None
    headers: Mapping[str, str | None] | None
    max_retries: int


SETTINGS: Final = frozenset({*Configuration.__annotations__, "client", "max_connections"})


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go, and with what key. Its repr does not show the key.

    Attributes:
        url: ``base_url`` and ``path``, joined.
        base_url: As given, by the caller or the environment.
        path: As given.
    """

    url: str
    base_url: str
    path: str | None
    api_key: str
    headers: Mapping[str, str | None]
    max_retries: int

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, max_retries={self.max_retries})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", self.url), ("max_retries", self.max_retries)]


def resolve_endpoint(
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    path: str | None = None,
    headers: Mapping[str, str | None] | None = None,
    max_retries: int = 2,
) -> Endpoint:
    """Fill in the environment's settings and the defaults, and check them.

    Raises:
        ConfigurationError: Something is missing or invalid. A key is never shown.
    """
    check_count("max_retries", max_retries, ConfigurationError, least=0)
    if base_url is None or base_url == "":
        base_url = os.environ.get("WRITER_BASE_URL", "").strip() or DEFAULT_BASE_URL
    return Endpoint(
        url=_resolve_url(base_url, path),
        base_url=base_url,
        path=path,
        api_key=_resolve_key(api_key),
        headers=check_headers("headers", headers, ConfigurationError),
        max_retries=max_retries,
    )


def resolve(given: Mapping[str, Any]) -> tuple[Endpoint, StreamSettings]:
    """Sort out the keyword arguments of ``Configuration``.

    Raises:
        ConfigurationError: One is missing, invalid or unknown.
    """
    _check_names(given, SETTINGS)
    reading = {name: value for name, value in given.items() if name in _READING}
    rest = {name: value for name, value in given.items() if name not in _READING}
    return resolve_endpoint(**rest), StreamSettings(**reading)


def override(
    endpoint: Endpoint, settings: StreamSettings, options: Mapping[str, Any]
) -> tuple[Endpoint, StreamSettings]:
    """The same configuration but for some of it. Headers are added to those there are.

    Raises:
        ConfigurationError: An option is invalid or unknown.
    """
    given = {name: getattr(settings, name) for name in _READING}
    given |= {
        name: getattr(endpoint, name)
        for name in Configuration.__annotations__
        if name not in _READING
    }
    given |= options
    headers = given["headers"]
    if isinstance(headers, Mapping):
        given["headers"] = {**endpoint.headers, **headers}
    return resolve(given)


def resolve_reading(given: Mapping[str, Any]) -> StreamSettings:
    """Sort out the keyword arguments of ``ReadingConfiguration``.

    Raises:
        ConfigurationError: One is invalid or unknown.
    """
    _check_names(given, _READING)
    return StreamSettings(**given)


def _check_names(given: Iterable[str], known: frozenset[str]) -> None:
    if unknown := sorted(set(given).difference(known)):
        raise ConfigurationError(
            f"There is no setting {', '.join(unknown)}; the settings are "
            f"{', '.join(sorted(known))}."
        )


def check_headers(what: str, headers: object, error: type[WriterError]) -> dict[str, str | None]:
    """Headers that HTTP can carry, else ``error``, which shows no value: it may be a secret."""
    if headers is not None and not isinstance(headers, Mapping):
        raise error(f"{what} must be a mapping, not {type(headers).__name__}.")
    given: Mapping[Any, Any] = headers or {}  # pyright: ignore[reportUnknownVariableType]
    for name, value in given.items():
        if not isinstance(name, str) or not re.fullmatch(_HEADER_NAME, name):
            raise error(f"{what} holds {name!r}, which cannot be the name of an HTTP header.")
        if value is not None and not isinstance(value, str):
            raise error(f"{what}[{name!r}] must be text or None, not {type(value).__name__}.")
        if value and not (value.isascii() and value.replace("\t", " ").isprintable()):
            raise error(
                f"{what}[{name!r}] holds a control character or one that is not ASCII, which no "
                "HTTP header can carry."
            )
    return dict(given)


_HEADER_NAME: Final = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_READING: Final = frozenset(ReadingConfiguration.__annotations__)


def _resolve_key(api_key: str | None) -> str:
    key = os.environ.get("WRITER_API_KEY", "") if api_key is None else api_key
    if not isinstance(key, str):
        raise ConfigurationError(f"api_key must be a string, not {type(key).__name__}.")
    key = key.strip()
    if not key:
        raise ConfigurationError(
            "There is no API key: pass api_key=... or set the environment variable WRITER_API_KEY."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            "The API key holds a control character or one that is not ASCII, which no HTTP "
            "header can carry. It may have been copied with something around it."
        )
    return key


def _resolve_url(base_url: str, path: str | None) -> str:
    for name, value in (("base_url", base_url), ("path", path)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}.")
    base = base_url.strip() or DEFAULT_BASE_URL
    if "@" in base and not (_is_base_url(base) and "@" not in urlsplit(base).netloc):
        # It is not shown: what stands before the "@" may be a password.
        raise ConfigurationError(
            "base_url must not hold a user name or a password. The API key goes into api_key=..., "
            "any other Authorization header into headers={'Authorization': ...}."
        )
    if not _is_base_url(base):
        raise ConfigurationError(f"base_url must be like 'https://api.writer.com', not {base!r}.")
    tail = DEFAULT_PATH if path is None else path
    if re.match(_SCHEME, tail) or "#" in tail or not tail.isprintable():
        raise ConfigurationError(
            f"path must be like {DEFAULT_PATH!r} and is added to base_url, not {tail!r}."
        )
    url = base.rstrip("/") + "/" + tail.lstrip("/")
    for name, value in (("base_url", base), ("base_url and path", url)):
        try:
            _ = httpx.URL(value).host  # where an international name is decoded
        except (httpx.InvalidURL, ValueError) as exc:
            raise ConfigurationError(f"{name} cannot be used as a URL: {exc}.") from None
    return url


_SCHEME: Final = r"[A-Za-z][-+.A-Za-z0-9]*://"


def _is_base_url(base: str) -> bool:
    if not base.isprintable() or any(character in base for character in " ?#"):
        return False
    try:
        parts = urlsplit(base)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, an invalid port
        return False
