"""The page put together: a head with the choice of the model, and the tabs, in each language."""

from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.messages import LANGUAGES
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.models import ModelStore
from alphabar.studio.page import LIGHT, Page
from alphabar.studio.tabs.compare import CompareTab
from alphabar.studio.tabs.data import DataTab
from alphabar.studio.tabs.generate import GenerateTab
from alphabar.studio.tabs.process import ProcessTab
from alphabar.studio.tabs.restore import RestoreTab
from alphabar.studio.tabs.runs import RunsTab

MAX_QUEUE = 32  # jobs that wait; one more is told to come back later


def build_page(models: ModelStore, jobs: TrainingJobs, files: Path) -> gr.Blocks:
    """The page: English at /, Spanish at /es. files: the folder of what the browser may read."""
    blocks = gr.Blocks(title="alphabar studio", analytics_enabled=False, delete_cache=(600, 3600))
    for language in LANGUAGES:
        if language != LANGUAGES[0]:
            blocks.route(language, language)
        with blocks:
            _add_language(Page(language, models, files, blocks), jobs)
    blocks.queue(default_concurrency_limit=4, max_size=MAX_QUEUE)
    return blocks


def _add_language(page: Page, jobs: TrainingJobs) -> None:
    gr.Navbar(visible=False)
    model = _add_head(page)
    model_facts = gr.HTML(elem_id="model-facts")
    with gr.Tabs(elem_id="tabs") as tabs:
        with gr.Tab(page.text("generate"), id="generate"):
            generating = GenerateTab(page, model, model_facts)
        with gr.Tab(page.text("process"), id="process"):
            ProcessTab(page, model)
        with gr.Tab(page.text("restore"), id="restore"):
            restoring = RestoreTab(page, model)
        with gr.Tab(page.text("runs"), id="runs"):
            RunsTab(page, jobs)
        with gr.Tab(page.text("compare"), id="compare"):
            CompareTab(page, model)
        with gr.Tab(page.text("data"), id="data"):
            DataTab(page)
    generating.exchange_with(restoring, tabs)


def _add_head(page: Page) -> gr.Dropdown:
    """The page's name, the choice of the model, which is returned, and the link to the other language."""
    other = next(language for language in LANGUAGES if language != page.language)
    home, there = (f"/{language if language != LANGUAGES[0] else ''}" for language in (page.language, other))
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
