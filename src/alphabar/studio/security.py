"""The guard in front of the server: only the page itself may use it, and only the routes that it needs."""

import asyncio
import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from alphabar.messages import LANGUAGES, Message, message
from alphabar.studio.answers import (
    HEADERS,
    Answer,
    Refused,
    Send,
    glossary_page,
    home_of,
    language_of,
    login_page,
    parse_address,
    read_login,
    redirection,
    refusal,
)
from alphabar.studio.login import Login
from alphabar.studio.temporary import TemporaryFiles

MAX_UPLOAD = 256 * 2**20
"""Bytes that one upload may have."""


MAX_MESSAGE = 2 * 2**20
"""Bytes of any other request; pictures travel as uploads."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

API = "/gradio_api"

FILE, UPLOAD, JOIN = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"

STARTUP = f"{API}/startup-events"  # which Gradio itself asks for as it begins

MAX_FORM = 4096
"""Bytes of the form with the password."""

PAGES = ("/", *(f"/{language}" for language in LANGUAGES[1:]))

MADE = (*PAGES, "/config", "/config/")  # by Gradio for each request, in a tenth of a second

GLOSSARY = ("/glossary", *(f"/{language}/glossary" for language in LANGUAGES[1:]))

HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?")  # no user names, no lists

# Gradio has more routes (proxies, streams, monitoring, …): what the page does not use is not there.
ROUTES = re.compile(
    r"/|/es|/glossary|/es/glossary|/config/?|/login|/logout|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    r"|/(?:assets|static|svelte)/.+"
    rf"|{API}/(?:file=.+|upload|upload_progress|queue/join|queue/data|cancel|reset|heartbeat/\w+"
    r"|startup-events|theme\.css|info|app_id|user|login_check|custom_component/.+)/?"
)

Scope = dict[str, Any]

Receive = Callable[[], Awaitable[dict[str, Any]]]


class RequestGuard:
    """ASGI middleware.

    files: what is served. loopback: whether only this machine can reach it. origin: the page's outside
    address, where something in between changes it. login: the password, or None. jobs: the numbers of the
    page's functions, or None for any.
    """

    def __init__(
        self,
        app: Any,
        files: TemporaryFiles,
        loopback: bool,
        origin: str | None = None,
        login: Login | None = None,
        jobs: Collection[int] | None = None,
    ):
        self.app, self.files, self.loopback, self.login, self.jobs = app, files, loopback, login, jobs
        self.origin = urlsplit(origin) if origin else None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        language = language_of(scope["path"], headers)
        try:
            if scope["type"] != "http":
                raise Refused(403, message("studio.refused_socket"))
            self.check(scope["method"], scope["path"], headers)
            answer = await self.own_answer(scope, headers, language, receive)
            if answer is not None:
                await answer.send(send)
            elif scope["path"] in MADE:
                await self.make_page(scope, headers, receive, send, language)
            else:
                await self.pass_on(scope, headers, receive, send, language)
        except Refused as refused:
            await refusal(refused, language).send(send)

    async def own_answer(
        self, scope: Scope, headers: dict[str, str], language: str, receive: Receive
    ) -> Answer | None:
        """What the guard answers itself: the language, the password and the glossary. None: Gradio answers.

        Raises Refused for a request that needs the password.
        """
        path, cookies, login = scope["path"], headers.get("cookie", ""), self.login
        query = scope.get("query_string", b"").decode("latin-1")
        if path == "/" and "language=" not in query and language != LANGUAGES[0]:
            return redirection(home_of(language))
        if login and path == "/login" and scope["method"] == "POST":
            password, language = read_login(await _read(receive, MAX_FORM))
            given = login.attempt(password, (scope.get("client") or ("",))[0])
            if isinstance(given, Message):
                status = 429 if given.identifier == "studio.login_wait" else 403
                return Answer(status, login_page(language, given))
            return redirection(home_of(language), ("set-cookie", given))
        if login and path == "/logout":
            return redirection("./", ("set-cookie", login.end(cookies)))
        if login and not login.knows(cookies) and path != STARTUP:
            if path in PAGES:
                return Answer(200, login_page(language), (("cache-control", "no-store"),))
            raise Refused(401, message("studio.refused_login"))
        if path in GLOSSARY:
            return Answer(200, glossary_page(language))
        return None if path not in ("/login", "/logout") else redirection("./")

    async def make_page(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send, language: str
    ) -> None:
        """Let Gradio make a page, and then send it. Pages that were made at once would take much memory."""
        made: list[dict[str, Any]] = []

        async def keep(event: dict[str, Any]) -> None:
            made.append(event)

        async with self._making:  # it is not held while a browser reads, which may be slow
            await self.pass_on(scope, headers, receive, keep, language)
        for event in made:
            await send(event)

    async def pass_on(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send, language: str
    ) -> None:
        """Let Gradio answer. Where it fails, the answer is a sentence. Raises Refused as `bounded` does."""
        begun = False

        async def sending(event: dict[str, Any]) -> None:
            nonlocal begun
            if event["type"] == "http.response.start":
                if event["status"] >= 500:
                    busy = event["status"] == 503 and scope["path"].startswith(JOIN)
                    reason = message("studio.queue_full") if busy else message("studio.server_failed")
                    raise Refused(event["status"], reason)
                event = {**event, "headers": [*event["headers"], *HEADERS]}
                begun = True
            await send(event)

        with self.incoming(scope["path"], headers) as room:
            if not room:
                raise Refused(507, message("studio.no_room", megabytes=self.files.quota // 2**20))
            receive = await self.bounded(scope["path"], headers, receive)
            try:
                await self.app(scope, receive, sending)
            except Refused:
                raise
            except Exception as error:
                if begun or type(error).__name__ == "ClientDisconnect":
                    return  # nobody waits for an answer any more
                if scope["path"].startswith(UPLOAD) and not isinstance(error, OSError):
                    raise Refused(400, message("studio.refused_upload")) from None  # no form with files
                traceback.print_exc(file=sys.stderr)
                raise Refused(500, message("studio.server_failed")) from None

    def incoming(self, path: str, headers: dict[str, str]) -> AbstractContextManager[bool]:
        """While a request comes in; whether there is room for what it uploads."""
        if not path.startswith(UPLOAD):
            return nullcontext(True)
        length = headers.get("content-length", "")
        return self.files.upload(min(int(length), MAX_UPLOAD) if length.isdecimal() else MAX_UPLOAD)

    def check(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Raises Refused for a request that the page itself would not make."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and not self.knows_host(host):
            # Another name that leads here is how a foreign page gets round the same-origin rule.
            raise Refused(403, message("studio.refused_host"))
        if origin is not None and not self.is_own_origin(origin, host):
            raise Refused(403, message("studio.refused_page"))
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            method not in ("GET", "HEAD") or path not in PAGES
        ):
            raise Refused(403, message("studio.refused_page"))
        if not ROUTES.fullmatch(path):
            raise Refused(404, message("studio.refused_route"))
        if path.startswith(FILE):
            self.check_file(path.removeprefix(FILE))

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this machine or the outside address, and nothing else."""
        if self.origin and host.lower() == self.origin.netloc.lower():
            return True
        return HOST.fullmatch(host) is not None and parse_address(f"//{host}").hostname in LOOPBACK

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is the page's own: the outside address, or without one the host."""
        if self.origin:
            return origin.lower() == f"{self.origin.scheme}://{self.origin.netloc}".lower()
        return host != "" and parse_address(origin).netloc == host

    def check_file(self, name: str) -> None:
        """Raises Refused for a file that does not lie in the folder files are served from."""
        try:
            path = Path(unquote(name))
            inside = path.is_absolute() and path.resolve(strict=True).is_relative_to(self.files.folder)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise Refused(403, message("studio.refused_file"))

    async def bounded(self, path: str, headers: dict[str, str], receive: Receive) -> Receive:
        """The request's body, no longer than it may be; that of a job is read and checked first."""
        most = MAX_UPLOAD if path.startswith(UPLOAD) else MAX_MESSAGE
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise Refused(413, message("studio.refused_size", megabytes=most // 2**20))
        if most == MAX_MESSAGE:
            body = await _read(receive, most)
            if path.startswith(JOIN):
                check_job(body, self.jobs)
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


def check_job(body: bytes, jobs: Collection[int] | None = None) -> None:
    """Raises Refused for a job that is none of the page's, or names a file by an address, to be fetched.

    jobs: the numbers of the page's functions, or None for any.
    """
    try:
        job = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, message("studio.refused_json")) from None
    if jobs is not None and (
        not isinstance(job, dict) or not _is_number(job.get("fn_index")) or job["fn_index"] not in jobs
    ):
        raise Refused(400, message("studio.refused_job"))
    waiting = [job]
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
