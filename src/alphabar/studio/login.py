"""The password in front of the page: who has given it, and how often a wrong one may be tried."""

import ipaddress
import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from alphabar.messages import Message, message

WRONG_BY_ADDRESS = 10
"""Wrong passwords that one address may send within `SECONDS_TO_WAIT`."""

WRONG_IN_ALL = 100
"""Wrong passwords that all addresses together may send in that time."""

SECONDS_TO_WAIT = 300.0
"""After which a wrong password no longer counts."""

MAX_SESSIONS = 1000  # browsers that are logged in; the oldest leaves


class Login:
    """The password of one studio.

    origin: the page's outside address, or None: its cookie is for that path, and encrypted where it can be.
    """

    def __init__(self, password: str, origin: str | None = None):
        outside = urlsplit(origin or "")
        self._password = password.encode()
        self._cookie = (
            f"alphabar-{secrets.token_hex(4)}"  # cookies do not know ports, so each studio has its own
        )
        self._attributes = f"Path={outside.path or '/'}; HttpOnly; SameSite=Lax"
        if outside.scheme == "https":
            self._attributes += "; Secure"
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)
        self._wrong: deque[tuple[float, str]] = deque(maxlen=WRONG_IN_ALL)

    def knows(self, cookies: str) -> bool:
        """Whether a request with this Cookie header comes from a browser that has given the password."""
        return self._session(cookies) in self._sessions

    def attempt(self, password: str, address: str) -> str | Message:
        """The Set-Cookie header for a right password, or why there is none."""
        now, block = time.monotonic(), network_of(address)
        while self._wrong and now - self._wrong[0][0] >= SECONDS_TO_WAIT:
            self._wrong.popleft()
        mine = [when for when, where in self._wrong if where == block]
        full = len(self._wrong) >= WRONG_IN_ALL
        if full or len(mine) >= WRONG_BY_ADDRESS:
            left = SECONDS_TO_WAIT - (now - (self._wrong[0][0] if full else mine[0]))
            return message("studio.login_wait", minutes=max(1, round(left / 60)))
        if not secrets.compare_digest(password.encode(), self._password):
            self._wrong.append((now, block))
            return message("studio.login_wrong")
        session = secrets.token_urlsafe(24)
        self._sessions.append(session)
        return f"{self._cookie}={session}; {self._attributes}"

    def end(self, cookies: str) -> str:
        """Log a browser out; the Set-Cookie header that removes its cookie."""
        session = self._session(cookies)
        if session and session in self._sessions:
            self._sessions.remove(session)
        return f"{self._cookie}=; Max-Age=0; {self._attributes}"

    def _session(self, cookies: str) -> str | None:
        try:
            found = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return None
        return found.value if found else None


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the first half, of which a single machine has the second."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 6 and ip.ipv4_mapped:  # so a socket of both kinds names IPv4
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
