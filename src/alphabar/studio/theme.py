"""The theme of the page: calm, without fonts or scripts from elsewhere."""

import json
from importlib.resources import files
from typing import Any

import gradio as gr

from alphabar.messages import LANGUAGES, message

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")

BROWSER_TEXTS = ("studio.save_one", "studio.use_in_restore", "studio.use_to_edit", "studio.close")
"""Texts of the catalogue that the page's script shows."""


def page_head() -> str:
    """The head of the page: its script, which also tells screen readers which language they read."""
    texts = {
        language: {key.partition(".")[2]: message(key).in_language(language) for key in BROWSER_TEXTS}
        for language in LANGUAGES
    }
    script = files("alphabar.studio").joinpath("page.js").read_text(encoding="utf-8")
    return f'<script>const TEXTS = {json.dumps(texts)};\n{script}</script><link rel="icon" href="data:,">'


def theme_options() -> dict[str, Any]:
    """The theme, the style sheet and the head of the page, as keyword arguments of Gradio's ``launch``."""
    blue = gr.themes.Color(
        "#eef6fb",
        "#d8eaf5",
        "#b3d5eb",
        "#82b9dc",
        "#4a98c9",
        "#1f7db5",
        "#0069a3",
        "#005788",
        "#04486f",
        "#0a3d5d",
        "#06283e",
    )
    theme = gr.themes.Base(
        primary_hue=blue,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=FONTS,
        font_mono=MONO,
    ).set(
        body_background_fill="#faf9f7",
        body_text_color="#22262b",
        body_text_color_subdued="#5c6167",
        block_background_fill="#ffffff",
        block_border_width="1px",
        block_border_color="#e6e3de",
        border_color_primary="#e6e3de",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_border_width="0px",
        block_label_text_color="#5c6167",
        block_title_text_color="#3b4046",
        block_title_text_weight="550",
        block_info_text_color="#5c6167",
        input_background_fill="#ffffff",
        input_border_color="#d9d5ce",
        input_border_width="1px",
        input_radius="8px",
        button_border_width="1px",
        block_radius="14px",
        button_large_radius="10px",
        button_large_text_weight="550",
        button_large_padding="9px 16px",
        button_large_text_size="*text_md",
        button_primary_background_fill="#0069a3",
        button_primary_background_fill_hover="#005788",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f2efea",
        button_secondary_border_color="#d9d5ce",
        slider_color="#0069a3",
        color_accent="#0069a3",
        link_text_color="#0069a3",
    )
    css = files("alphabar.studio").joinpath("theme.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": css, "head": page_head()}
