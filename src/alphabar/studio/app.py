"""The page put together: a head with the choice of the model, and the tabs, in each language."""

import html
import sys
import traceback
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from alphabar.codecs.image_files import LARGEST
from alphabar.messages import LANGUAGES, message
from alphabar.studio.answers import home_of
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.languages import LanguageChange, LeftPages
from alphabar.studio.models import ModelStore
from alphabar.studio.page import LIGHT, Page, Tab
from alphabar.studio.tabs.compare import CompareTab
from alphabar.studio.tabs.data import DataTab
from alphabar.studio.tabs.generate import GenerateTab
from alphabar.studio.tabs.process import ProcessTab
from alphabar.studio.tabs.restore import RestoreTab
from alphabar.studio.tabs.runs import RunsTab

MAX_QUEUE = 32  # jobs that wait; one more is told to come back later


class StudioBlocks(gr.Blocks):
    """Gradio's page, whose own errors are a sentence in the language of the page that made the request."""

    async def preprocess_data(self, block_fn: Any, *arguments: Any, **options: Any) -> Any:
        """As Gradio does it. Raises gr.Error for values that no control of the page takes."""
        try:
            return await super().preprocess_data(block_fn, *arguments, **options)
        except Exception as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                problem = message("codecs.gigantic", limit=LARGEST // 10**6)
                raise _said("studio.bad_picture", block_fn, problem=problem) from None
            raise _said("studio.bad_value", block_fn) from None

    async def process_api(self, block_fn: Any, *arguments: Any, **options: Any) -> Any:
        """As Gradio does it. Raises gr.Error where a function fails in a way that it does not say itself."""
        try:
            return await super().process_api(block_fn, *arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            if not _in_the_studio(error):  # Gradio does not take what was sent
                raise _said("studio.bad_value", block_fn) from None
            traceback.print_exc(file=sys.stderr)
            raise _said("studio.internal_error", block_fn, name=type(error).__name__) from None


def _in_the_studio(error: Exception) -> bool:
    """Whether an error was raised in alphabar or below it, rather than in Gradio before it is called."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(__file__).parents[1])
    return any(frame.filename.startswith(own) for frame in frames if frame.filename != __file__)


def _said(identifier: str, block_fn: Any, **values: Any) -> gr.Error:
    language = getattr(block_fn, "page", "") or LANGUAGES[0]
    text = html.escape(message(identifier, **values).in_language(language))
    return gr.Error(text, duration=None, print_exception=False)


def build_page(models: ModelStore, jobs: TrainingJobs, files: Path) -> gr.Blocks:
    """The page: English at /, Spanish at /es. files: the folder of what the browser may read."""
    left = LeftPages()
    blocks = StudioBlocks(title="alphabar studio", analytics_enabled=False, delete_cache=(600, 3600))
    for language in LANGUAGES:
        if language != LANGUAGES[0]:
            blocks.route(language, language)
        with blocks:
            _add_language(Page(language, models, files, blocks), jobs, left)
    blocks.queue(default_concurrency_limit=4, max_size=MAX_QUEUE)
    # Gradio looks for a job a thousand times a second, which takes a twentieth of a core from a training.
    blocks._queue.sleep_when_free = 0.02
    return blocks


def _add_language(page: Page, jobs: TrainingJobs, left: LeftPages) -> None:
    gr.Navbar(visible=False)
    model = _add_head(page)
    model_facts = gr.HTML(elem_id="model-facts")
    with gr.Tabs(elem_id="tabs") as container:
        with _tab(page.text("generate"), "generate"):
            generating = GenerateTab(page, model, model_facts)
        with _tab(page.text("process"), "process") as process:
            processing = ProcessTab(page, model, process)
        with _tab(page.text("restore"), "restore"):
            restoring = RestoreTab(page, model)
        with _tab(page.text("runs"), "runs"):
            runs = RunsTab(page, jobs)
        with _tab(page.text("compare"), "compare"):
            comparing = CompareTab(page, model)
        with _tab(page.text("data"), "data"):
            data = DataTab(page)
    generating.exchange_with(restoring, container)
    tabs: list[Tab] = [generating, processing, restoring, runs, comparing, data]
    LanguageChange(page, model, model_facts, tabs, left)


def _tab(label: str, name: str) -> gr.Tab:
    return gr.Tab(label, id=name, elem_id=f"tab-{name}")  # by which the script knows the one that is open


def _add_head(page: Page) -> gr.Dropdown:
    """The page's name, the choice of the model, which is returned, and the link to the other language."""
    other = next(language for language in LANGUAGES if language != page.language)
    home, there = home_of(page.language), home_of(other)
    with gr.Row(elem_id="head", equal_height=True):
        gr.HTML(
            f'<h1><a class="brand" href="{home}"><span>ᾱ</span> alphabar studio</a></h1>'
            f"<p>{page.text('tagline')}</p>"
        )
        names = page.models.models()
        model = gr.Dropdown(
            names,
            value=names[0] if names else None,
            label=page.text("model"),
            scale=0,
            min_width=230,
            elem_id="model",
        )
        gr.HTML(f'<a class="language" lang="{other}" href="{there}">{page.text("other_language")}</a>')

    def refresh(chosen: str | None) -> Any:
        names = page.models.models()
        return gr.update(choices=names, value=chosen if chosen in names else next(iter(names), None))

    model.focus(refresh, model, model, **LIGHT)
    return model
