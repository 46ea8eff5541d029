"""The guard in front of the server: only the page itself may use it, and only the routes that it needs."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from alphabar.messages import Message, message

MAX_UPLOAD = 256 * 2**20
"""Bytes that one upload may have."""


MAX_MESSAGE = 2 * 2**20
"""Bytes of any other request; pictures travel as uploads."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

API = "/gradio_api"

FILE = f"{API}/file="

# Gradio has more routes (proxies, streams, monitoring, …): what the page does not use is not there.
ROUTES = re.compile(
    r"/|/es|/config/?|/login/?|/logout/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    r"|/(?:assets|static|svelte)/.+"
    rf"|{API}/(?:file=.+|upload|upload_progress|queue/join|queue/data|cancel|reset|heartbeat/\w+"
    r"|startup-events|theme\.css|info|app_id|user|login_check|custom_component/.+)/?"
)

# The page needs nothing but itself; Gradio's own scripts are inline and evaluate templates.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none';"
    " base-uri 'self'; frame-ancestors 'self'; form-action 'self'"
)

Scope = dict[str, Any]

Receive = Callable[[], Awaitable[dict[str, Any]]]

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is not answered. status: of HTTP. reason: a message of the catalogue."""

    def __init__(self, status: int, reason: Message):
        super().__init__(reason)
        self.status, self.reason = status, reason


class RequestGuard:
    """ASGI middleware. files: the folder that is served. loopback: whether only this machine can reach it."""

    def __init__(self, app: Any, files: Path, loopback: bool):
        self.app, self.files, self.loopback = app, files.resolve(), loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        try:
            if scope["type"] != "http":
                raise Refused(403, message("studio.refused_socket"))
            headers = {
                key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]
            }
            self.check(scope["method"], scope["path"], headers)
            receive = await self.bounded(scope["path"], headers, receive)
        except Refused as refusal:
            return await refuse(send, refusal)

        async def sending(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                more = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                event = {**event, "headers": [*event["headers"], *more]}
            await send(event)

        await self.app(scope, receive, sending)

    def check(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Raises Refused for a request that the page itself would not make."""
        host = headers.get("host", "")
        if self.loopback and urlsplit(f"//{host}").hostname not in LOOPBACK:
            # Another name that leads here is how a foreign page gets round the same-origin rule.
            raise Refused(403, message("studio.refused_host"))
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, message("studio.refused_page"))
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            method not in ("GET", "HEAD") or path not in ("/", "/es")
        ):
            raise Refused(403, message("studio.refused_page"))
        if not ROUTES.fullmatch(path):
            raise Refused(404, message("studio.refused_route"))
        if path.startswith(FILE):
            self.check_file(path.removeprefix(FILE))

    def check_file(self, name: str) -> None:
        """Raises Refused for a file that does not lie in the folder files are served from."""
        try:
            path = Path(unquote(name))
            inside = path.is_absolute() and path.resolve(strict=True).is_relative_to(self.files)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise Refused(403, message("studio.refused_file"))

    async def bounded(self, path: str, headers: dict[str, str], receive: Receive) -> Receive:
        """The request's body, no longer than it may be; that of a job is read and checked first."""
        most = MAX_UPLOAD if path.startswith(f"{API}/upload") else MAX_MESSAGE
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise Refused(413, message("studio.refused_size", megabytes=most // 2**20))
        if most == MAX_MESSAGE:
            body = await _read(receive, most)
            if path.startswith(f"{API}/queue/join"):
                check_job(body)
            given = False

            async def again() -> dict[str, Any]:
                nonlocal given
                if given:
                    return await receive()
                given = True
                return {"type": "http.request", "body": body, "more_body": False}

            return again
        seen = 0

        async def counted() -> dict[str, Any]:
            nonlocal seen
            event = await receive()
            seen += len(event.get("body", b""))
            # The declared length is kept by the server; a body without one ends here.
            return {"type": "http.disconnect"} if seen > most else event

        return counted


def check_job(body: bytes) -> None:
    """Raises Refused for a job that names a file by an address: Gradio would fetch it."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        raise Refused(400, message("studio.refused_json")) from None
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("path", "url"):
                text = value.get(key)
                if isinstance(text, str) and "://" in text and (key == "path" or FILE not in text):
                    raise Refused(403, message("studio.refused_address"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refused(400, message("studio.refused_incomplete"))
        parts.append(event.get("body", b""))
        if sum(map(len, parts)) > most:
            raise Refused(413, message("studio.refused_size", megabytes=most // 2**20))
        if not event.get("more_body"):
            return b"".join(parts)


async def refuse(send: Send, refusal: Refused) -> None:
    """Answer a request with its refusal."""
    body = json.dumps({"detail": str(refusal.reason)}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
