"""One request to a node over TCP, TLS or its Unix socket: bounded, without redirects."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any, Dict, Iterator, Mapping, Optional
from urllib.parse import quote, urlencode, urlsplit

# Every release of a large federation fits.
MAX_ANSWER = 256 * 1024 * 1024
# A transfer with many peers is the largest event.
MAX_EVENT = 64 * 1024 * 1024
# An ordinary answer; the node itself gives up after half of it.
TIMEOUT = 60.0
# The node sends a comment every 15 seconds: a stream that is quiet for longer is broken.
QUIET = 60.0


class NodeError(Exception):
    """A node refused, or can't be reached. `problem` holds its problem details (RFC 9457) where it sent any."""

    def __init__(self, message: str, status: Optional[int] = None, problem: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.status, self.problem = status, problem


def segment(text: str, keep: str = "") -> str:
    """`text` as one segment of a path; as several where `/` is kept."""
    return quote(text, safe="-_.~" + keep)


class _Local(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Transport:
    """The way to a node: `http://host:port`, `https://…` or `unix:/path/to/steelyard.sock`."""

    def __init__(self, endpoint: str, headers: Optional[Mapping[str, str]] = None, context: Optional[ssl.SSLContext] = None) -> None:
        self.endpoint, self.headers, self.context = endpoint.rstrip("/"), dict(headers or {}), context
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https", "unix") or (parts.scheme != "unix" and not parts.hostname):
            raise ValueError(f"{endpoint} is no address of a node; write http://host:port or unix:/path")

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "unix":
            return _Local(parts.path, timeout)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)

    def _open(self, path: str, query: Optional[Mapping[str, object]], timeout: float) -> "_Answer":
        pairs = {name: value for name, value in (query or {}).items() if value is not None}
        target = urlsplit(self.endpoint).path if not self.endpoint.startswith("unix:") else ""
        target += path + (f"?{urlencode(pairs)}" if pairs else "")
        connection = self._connection(timeout)
        try:
            connection.request("GET", target, headers={"accept": "*/*", **self.headers})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NodeError(f"{self.endpoint} does not answer: {error}") from error
        answer = _Answer(connection, response)
        if response.status != 200:
            with answer:
                raise refused(response.status, answer.whole())
        return answer

    def bytes(self, path: str, query: Optional[Mapping[str, object]] = None) -> bytes:
        with self._open(path, query, TIMEOUT) as answer:
            return answer.whole()

    def text(self, path: str, query: Optional[Mapping[str, object]] = None) -> str:
        return self.bytes(path, query).decode("utf-8", "replace")

    def json(self, path: str, query: Optional[Mapping[str, object]] = None) -> Any:
        try:
            return json.loads(self.bytes(path, query))
        except ValueError as error:
            raise NodeError(f"the answer of {self.endpoint}{path} is no JSON: {error}") from error

    def events(self, path: str, query: Optional[Mapping[str, object]] = None) -> Iterator[Any]:
        """The data of each event, for as long as the stream lasts."""
        # At once, so that whoever has the iterator misses nothing that happens from now on.
        answer = self._open(path, query, QUIET)
        return _events(answer)


class _Answer:
    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.connection, self.response = connection, response

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()

    def whole(self) -> bytes:
        try:
            data = self.response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise NodeError(f"the answer broke off: {error}") from error
        if len(data) > MAX_ANSWER:
            raise NodeError(f"the answer is over {MAX_ANSWER} bytes")
        return data


def _events(answer: _Answer) -> Iterator[Any]:
    with answer:
        data, size = [], 0
        while True:
            try:
                line = answer.response.readline(MAX_EVENT + 1)
            except (OSError, http.client.HTTPException) as error:
                raise NodeError(f"the stream broke off: {error}") from error
            if not line:
                return
            line = line.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                size += len(line)
            if size + len(line) > MAX_EVENT:
                raise NodeError(f"an event is over {MAX_EVENT} bytes")
            if not line and data:
                try:
                    event = json.loads(b"\n".join(data))
                except ValueError as error:
                    raise NodeError(f"an event is no JSON: {error}") from error
                data, size = [], 0
                yield event


def refused(status: int, body: bytes) -> NodeError:
    try:
        problem = json.loads(body)
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return NodeError(f"the node answered {status}", status)
    hint = problem.get("hint")
    return NodeError(f"{detail}; {hint}" if hint else detail, status, problem)
