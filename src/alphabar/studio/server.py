"""The server of the page: on this machine only, unless there is a password."""

import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import exists
from alphabar.runs.model import locate, shipped
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.login import Login
from alphabar.studio.memory import give_back, share_heaps
from alphabar.studio.models import ModelStore
from alphabar.studio.security import LOOPBACK, MAX_UPLOAD, RequestGuard
from alphabar.studio.temporary import TemporaryFiles

RUNS = Path("runs")  # the folder that is opened by default, and need not be there yet

ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def serve(
    path: Path = RUNS,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    origin: str | None = None,
    password: str | None = None,
    opened: Callable[[str], None] = print,
) -> None:
    """Serve the page until interrupted.

    origin: the page's address as the browser has it, where a proxy stands in between.
    opened: called with the page's address once it can be used.

    Raises UsageError for a host that others can reach without a password, and for a folder, a port or an
    address that cannot be; AlphabarError where Gradio is missing or the port is taken.
    """
    if host not in LOOPBACK and password is None:
        raise UsageError("studio.needs_password", host=host)
    if password is not None and not password.strip():
        raise UsageError("studio.empty_password")
    if path != RUNS and not exists(locate(path)):
        raise UsageError("studio.no_folder", path=path, shipped=", ".join(p.name for p in shipped()))
    origin = check_origin(origin)
    check_address(host, port)
    share_heaps()
    models = ModelStore(path)
    with tempfile.TemporaryDirectory(prefix="alphabar-studio-") as folder, _gradio_files_in(folder):
        import_gradio()
        from PIL import Image

        from alphabar.codecs.image_files import LARGEST
        from alphabar.studio.app import build_page

        Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses pictures with more than twice as many
        jobs = TrainingJobs(models)
        files = Path(folder).resolve()
        blocks = build_page(models, jobs, files)
        address = _launch(blocks, files, host, port, origin, password)
        # The model that the page opens with is loaded, or nearly, when a browser shows the page. The thread
        # is waited for at the end: one that is cut off inside torch would abort the process.
        threading.Thread(target=_preload, args=(models,)).start()
        opened(origin or address)
        # Whatever ends the command, its trainings are asked to save.
        heard = interrupted_by_signals()
        closing = threading.Event()
        for keeper in (TemporaryFiles(files).keep_room, give_back):
            threading.Thread(target=keeper, args=(closing,), daemon=True).start()
        try:
            blocks.block_thread()
        finally:
            for number in heard:  # terminals and launchers may deliver a signal twice
                signal.signal(number, signal.SIG_IGN)
            closing.set()
            jobs.close()
            blocks.close()


@contextmanager
def _gradio_files_in(folder: str) -> Iterator[None]:
    """Let Gradio keep its files in a folder, and afterwards where it did before."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["GRADIO_TEMP_DIR"]
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def interrupted_by_signals() -> list[signal.Signals]:
    """Let a launcher and a closing terminal end the command as Ctrl-C does; the signals that do.

    One that is ignored, as under nohup, stays ignored.
    """
    heard = [number for number in ENDING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    return heard


def check_origin(origin: str | None) -> str | None:
    """The page's outside address as browsers state it, without a slash at its end.

    Raises UsageError for one that cannot be.
    """
    if origin is None:
        return None
    try:
        parts = urlsplit(origin)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"[\s\"'<>]", origin):
        raise UsageError("studio.bad_origin", origin=origin)
    usual = {"http": 80, "https": 443}[parts.scheme]  # which browsers leave out
    place = parts.netloc.removesuffix(f":{usual}")
    return parts._replace(netloc=place).geturl().rstrip("/")


def check_address(host: str, port: int | None) -> None:
    """Raises UsageError for a port that is none, and AlphabarError where the address cannot be used."""
    if port is not None and not 0 < port < 2**16:
        raise UsageError("studio.bad_port", port=port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == EADDRINUSE:
            raise AlphabarError("studio.port_taken", host=host, port=port) from None
        raise AlphabarError("studio.cannot_serve", host=host, problem=error.strerror or error) from None


def import_gradio() -> None:
    """Import Gradio, which sends statistics unless it is told not to before it is imported.

    Raises AlphabarError where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)  # else all jobs are summed up after each
    for name in ("ALLOWED_PATHS", "SHARE", "SSR_MODE", "NUM_WORKERS", "ROOT_PATH"):
        os.environ.pop(f"GRADIO_{name}", None)  # each would open the page further than this module does
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise AlphabarError("studio.needs_gradio") from None


def _launch(
    blocks: Any, files: Path, host: str, port: int | None, origin: str | None, password: str | None
) -> str:
    """Begin to serve, in threads of Gradio's own; the address. files: the only folder that is served."""
    from starlette.middleware import Middleware

    from alphabar.studio.sessions import Sessions
    from alphabar.studio.theme import theme_options

    guard = Middleware(
        RequestGuard,
        files=TemporaryFiles(files),
        loopback=host in LOOPBACK,
        origin=origin,
        login=None if password is None else Login(password, origin),
        jobs=frozenset(blocks.fns),
    )

    try:
        app, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            root_path=origin,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            inbrowser=False,
            footer_links=[],
            allowed_paths=[],
            blocked_paths=[str(Path.home())] if not files.is_relative_to(Path.home()) else [],
            max_file_size=MAX_UPLOAD,
            max_threads=16,
            state_session_capacity=200,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            app_kwargs={
                "middleware": [guard],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            **theme_options(),
        )
    except OSError as error:
        raise AlphabarError("studio.cannot_serve", host=host, problem=error) from None
    app.state_holder = Sessions()
    app.state_holder.set_blocks(blocks)
    return str(address)


def _preload(models: ModelStore) -> None:
    """Load the first model. Where that fails, the page says so when it needs the model."""
    with suppress(AlphabarError):
        models.load(next(iter(models.models()), None))
