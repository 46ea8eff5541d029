"""The page put together, and its server."""

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
from alphabar.studio.security import LARGEST_UPLOAD, LOOPBACK, RequestGuard
from alphabar.studio.tabs.compare import tab as compare_tab
from alphabar.studio.tabs.data import tab as data_tab
from alphabar.studio.tabs.generate import tab
from alphabar.studio.tabs.process import tab as process_tab
from alphabar.studio.tabs.restore import tab as restore_tab
from alphabar.studio.tabs.runs import tab as runs_tab
from alphabar.studio.translations import LANGUAGES

WAITING = 32  # jobs in the queue; one more is told to come back later


def _gradio() -> Any:
    """Gradio, which phones home unless told not to before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_SSR_MODE", "GRADIO_NUM_WORKERS"):
        os.environ.pop(name, None)  # what opens the page further than this file says
    try:
        import gradio
    except ImportError:
        raise AlphabarError('the studio needs Gradio: pip install "alphabar[studio]"') from None
    return gradio


def build(shelf: ModelStore, trainings: TrainingJobs, folder: Path) -> Any:
    """The page, a gradio.Blocks: English at /, Spanish at /es. folder: for what the browser may read."""
    gr = _gradio()
    from alphabar.studio.page import LIGHT, Page

    blocks = gr.Blocks(title="alphabar studio", analytics_enabled=False, delete_cache=(600, 3600))
    for language, code in enumerate(LANGUAGES):
        if language:
            blocks.route(code, code)
        with blocks:
            page = Page(language, shelf, folder, blocks)
            gr.Navbar(visible=False)
            with gr.Row(elem_id="head", equal_height=True):
                other = LANGUAGES[1 - language]
                gr.HTML(
                    f'<a class="brand" href="/{code if language else ""}"><span>ᾱ</span> alphabar studio</a>'
                    f"<p>{page.text('tagline')}</p>"
                )
                names = shelf.models()
                model = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label=page.text("model"),
                    scale=0,
                    min_width=230,
                    elem_id="model",
                )
                gr.HTML(
                    f'<a class="language" lang="{other}" href="/{other if other != "en" else ""}">'
                    f"{page.text('other_language')}</a>"
                )
            about_model = gr.HTML(elem_id="about-model")

            def renew(chosen: str | None) -> Any:
                names = shelf.models()
                return gr.update(choices=names, value=chosen if chosen in names else next(iter(names), None))

            model.focus(renew, model, model, **LIGHT)
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab(page.text("generate"), id="generate"):
                    tab(page, model, about_model)
                with gr.Tab(page.text("process"), id="process"):
                    process_tab(page, model)
                with gr.Tab(page.text("mend"), id="mend"):
                    restore_tab(page, model)
                with gr.Tab(page.text("runs"), id="runs"):
                    runs_tab(page, trainings)
                with gr.Tab(page.text("compare"), id="compare"):
                    compare_tab(page, model)
                with gr.Tab(page.text("data"), id="data"):
                    data_tab(page)
    blocks.queue(default_concurrency_limit=4, max_size=WAITING)
    return blocks


def serve(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    opened: Callable[[str], None] = print,
) -> None:
    """Serve the page until interrupted. opened: told the address once the page can be used.

    Raises UsageError for a host that others can reach without a password, AlphabarError where Gradio is
    missing or the port is taken.
    """
    if host not in LOOPBACK and not password:
        raise UsageError(f"--host {host} lets others in: protect the page with --password")
    shelf = ModelStore(path)
    with tempfile.TemporaryDirectory(prefix="alphabar-studio-") as name:
        folder = Path(name).resolve()
        os.environ["GRADIO_TEMP_DIR"] = name
        _gradio()
        from PIL import Image
        from starlette.middleware import Middleware

        from alphabar.codecs.image_files import LARGEST
        from alphabar.studio.theme import theme_css

        # What the page opens with is ready, or nearly, when a browser has drawn the page.
        threading.Thread(target=_fetch, args=(shelf,), daemon=True).start()
        Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses what has more than twice as many
        trainings = TrainingJobs(shelf)
        blocks = build(shelf, trainings, folder)
        try:
            _, local, _ = blocks.launch(
                server_name=host,
                server_port=port,
                auth=None if password is None else _only(password),
                share=False,
                quiet=True,
                show_error=True,
                prevent_thread_lock=True,
                inbrowser=False,
                footer_links=[],
                allowed_paths=[],
                blocked_paths=[str(Path.home())] if not folder.is_relative_to(Path.home()) else [],
                max_file_size=LARGEST_UPLOAD,
                max_threads=16,
                state_session_capacity=200,
                enable_monitoring=False,
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                app_kwargs={
                    "middleware": [Middleware(RequestGuard, files=folder, loopback=host in LOOPBACK)],
                    "docs_url": None,
                    "redoc_url": None,
                    "openapi_url": None,
                },
                **theme_css(),
            )
        except OSError as error:
            raise AlphabarError(f"cannot serve at {host}: {error}") from None
        opened(local)
        # Whatever ends the command, its trainings are asked to save.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            blocks.block_thread()
        finally:
            trainings.close()
            blocks.close()


def _fetch(shelf: ModelStore) -> None:
    """Load the first model. Where that fails, the page says so when it asks for it."""
    with suppress(AlphabarError):
        shelf.load(next(iter(shelf.models()), None))


def _only(password: str) -> Callable[[str, str], Any]:
    """Whether the password is right, whatever the name; a wrong one takes a second."""

    async def right(_: str, given: str) -> bool:
        if secrets.compare_digest(given.encode(), password.encode()):
            return True
        await asyncio.sleep(1)
        return False

    return right
