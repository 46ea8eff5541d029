"""What the studio answers without Gradio: the password's page, the glossary, redirections and refusals."""

import html
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from alphabar.messages import LANGUAGES, Message, message
from alphabar.studio.elements import glossary_terms

Send = Callable[[dict[str, Any]], Awaitable[None]]

# The page needs nothing but itself; Gradio's own scripts are inline and evaluate templates.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none';"
    " base-uri 'self'; frame-ancestors 'self'; form-action 'self'"
)

HEADERS = ((b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"))
"""Of every answer."""

PLAIN_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; background: light-dark(#faf9f7, #171614); margin: 0;
  color: light-dark(#22262b, #eceae6); }
main { max-width: 68ch; margin: 8vh auto; padding: 0 20px; }
h1 { font-size: 1.4rem; } dt { font-weight: 600; margin-top: 1em; } dd { margin: 0; }
:target, :target + dd { background: light-dark(#d8eaf5, #0a3d5d); }
form { display: grid; gap: 8px; max-width: 320px; }
input, button { font: inherit; padding: 9px 12px; border-radius: 8px; border: 1px solid #8a8781; }
button { background: #0069a3; color: #fff; border: 0; }
[role="alert"] { color: light-dark(#a3260d, #ffb4a3); }
"""


class Refused(Exception):
    """A request that is not answered. status: of HTTP. reason: a message of the catalogue."""

    def __init__(self, status: int, reason: Message):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Answer:
    """A whole answer. headers: more of them, such as a redirection's or a cookie's."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "text/html; charset=utf-8"

    async def send(self, send: Send) -> None:
        """Send it as ASGI events."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers]
        headers += [(b"content-type", self.kind.encode()), *HEADERS]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body.encode()})


def refusal(refused: Refused, language: str) -> Answer:
    """The answer to a request that is refused, as the page's scripts read it."""
    body = json.dumps({"detail": refused.reason.in_language(language)}, ensure_ascii=False)
    return Answer(refused.status, body, (("connection", "close"),), "application/json")


def redirection(place: str, *headers: tuple[str, str]) -> Answer:
    """To another page. place: relative, so that it is right behind a proxy that adds a path."""
    return Answer(303, "", (("location", place), ("cache-control", "no-store"), *headers))


def home_of(language: str) -> str:
    """Where the page in a language is, from any of its pages: chosen, so that the browser does not choose."""
    return f"./?language={language}" if language == LANGUAGES[0] else language


def language_of(path: str, headers: dict[str, str]) -> str:
    """The language that a request is to be answered in.

    That of the page it asks for or comes from, else the one that the browser prefers.
    """
    page = parse_address(headers.get("referer", ""))
    for place in (path, page.path):
        for language in LANGUAGES[1:]:
            if place.endswith(f"/{language}") or f"/{language}/" in place:
                return language
    chosen = parse_qs(page.query).get("language", [""])[0]
    return chosen if chosen in LANGUAGES else preferred_language(headers.get("accept-language", ""))


def parse_address(address: str) -> SplitResult:
    """The parts of an address that a browser, or somebody else, sent; all empty where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def preferred_language(accepted: str) -> str:
    """The first language of the catalogue in an Accept-Language header, by its weights."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, _, weight = part.strip().partition(";q=")
        try:
            weights.setdefault(name[:2].lower(), float(weight or 1))
        except ValueError:
            continue
    best = max(LANGUAGES, key=lambda language: weights.get(language, 0.0))
    return best if weights.get(best, 0.0) > 0 else LANGUAGES[0]


def login_page(language: str, problem: Message | None = None) -> str:
    """The page that asks for the password, in a language; it needs no scripts."""
    title, label, button = (
        html.escape(message(f"studio.login_{part}").in_language(language))
        for part in ("title", "password", "button")
    )
    said = f'<p role="alert">{html.escape(problem.in_language(language))}</p>' if problem else ""
    return _plain_page(
        language,
        f"""<p>{title}</p>{said}
<form method="post" action="login"><input type="hidden" name="language" value="{language}">
<label for="password">{label}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button>{button}</button></form>""",
    )


def read_login(body: bytes) -> tuple[str, str]:
    """(password, language) from the form of `login_page`."""
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    language = fields.get("language", [""])[0]
    return fields.get("password", [""])[0], language if language in LANGUAGES else LANGUAGES[0]


def glossary_page(language: str) -> str:
    """All terms that the page explains, in a language."""
    rows = "".join(
        f'<dt id="{key}">{html.escape(name)}</dt><dd>{html.escape(explanation)}</dd>'
        for key, (name, explanation) in glossary_terms(language).items()
    )
    return _plain_page(
        language, f"<p>{html.escape(message('studio.glossary').in_language(language))}</p><dl>{rows}</dl>"
    )


def _plain_page(language: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>alphabar studio</title><link rel="icon" href="data:,"><style>{PLAIN_STYLE}</style>'
        f"<main><h1>ᾱ alphabar studio</h1>{body}</main></html>"
    )
