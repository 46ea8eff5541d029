"""The server of the page: on this machine only, unless there is a password."""

import asyncio
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from alphabar.errors import AlphabarError, UsageError
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.models import ModelStore
from alphabar.studio.security import LOOPBACK, MAX_UPLOAD, RequestGuard

SECONDS_AFTER_A_WRONG_PASSWORD = 1


def serve(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    opened: Callable[[str], None] = print,
) -> None:
    """Serve the page until interrupted. opened: called with the address once the page can be used.

    Raises UsageError for a host that others can reach without a password, AlphabarError where Gradio is
    missing or the port is taken.
    """
    if host not in LOOPBACK and not password:
        raise UsageError("studio.needs_password", host=host)
    models = ModelStore(path)
    with tempfile.TemporaryDirectory(prefix="alphabar-studio-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        import_gradio()
        from PIL import Image

        from alphabar.codecs.image_files import LARGEST
        from alphabar.studio.app import build_page

        # The model that the page opens with is loaded, or nearly, when a browser shows the page.
        threading.Thread(target=_preload, args=(models,), daemon=True).start()
        Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses pictures with more than twice as many
        jobs = TrainingJobs(models)
        files = Path(folder).resolve()
        blocks = build_page(models, jobs, files)
        opened(_launch(blocks, files, host, port, password))
        # Whatever ends the command, its trainings are asked to save.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            blocks.block_thread()
        finally:
            jobs.close()
            blocks.close()


def import_gradio() -> None:
    """Import Gradio, which sends statistics unless it is told not to before it is imported.

    Raises AlphabarError where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_SSR_MODE", "GRADIO_NUM_WORKERS"):
        os.environ.pop(name, None)  # each would open the page further than this module does
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise AlphabarError("studio.needs_gradio") from None


def _launch(blocks: Any, files: Path, host: str, port: int | None, password: str | None) -> str:
    """Begin to serve, in threads of Gradio's own; the address. files: the only folder that is served."""
    from starlette.middleware import Middleware

    from alphabar.studio.theme import theme_options

    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            auth=None if password is None else _check(password),
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
                "middleware": [Middleware(RequestGuard, files=files, loopback=host in LOOPBACK)],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            **theme_options(),
        )
    except OSError as error:
        raise AlphabarError("studio.cannot_serve", host=host, problem=str(error)) from None
    return str(address)


def _preload(models: ModelStore) -> None:
    """Load the first model. Where that fails, the page says so when it needs the model."""
    with suppress(AlphabarError):
        models.load(next(iter(models.models()), None))


def _check(password: str) -> Callable[[str, str], Any]:
    """Whether a password is right, whatever the user's name; the answer to a wrong one is slow."""

    async def right(_: str, given: str) -> bool:
        if secrets.compare_digest(given.encode(), password.encode()):
            return True
        await asyncio.sleep(SECONDS_AFTER_A_WRONG_PASSWORD)
        return False

    return right
