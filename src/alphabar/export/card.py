"""The model card of an export for the Hub: what the model is, how good it is, and what it is not for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphabar.codecs.base import reader_of
from alphabar.conditioning.fields import Categorical, Text
from alphabar.files import write_file
from alphabar.formatting import format_number, format_short_count
from alphabar.messages import Message, message, reader_language, translated
from alphabar.recipes.schema import Recipe
from alphabar.reporting.evaluation_rows import shown_name
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample

PATH = re.compile(r"(?:(?<=\s)|^)(?!hf:/)[^\s/\\]*[/\\].*?(?=, |$)")
"""A path in a text, up to a comma or the end: names of folders may have spaces."""


@dataclass(frozen=True)
class Card:
    """What a model card tells. data: the name of the training data, or None. grid: the file of the samples.
    evaluation: an entry of evaluation.json of this very model, or None."""

    model: Model
    recipe: Recipe
    settings: SamplingSettings
    licence: str
    data: str | None
    samples: int
    grid: str
    evaluation: Mapping[str, Any] | None


def write_card(card: Card, path: Path, language: str | None = None) -> None:
    """Writes README.md with its metadata in front. language: by default the reader's."""
    said = language or reader_language()

    def say(identifier: str, **values: Any) -> str:
        return translated(message(identifier, **values), said)

    parts = [
        _front_matter(card),
        f"# {card.model.path.name}",
        say("hub.card_about", size=_size(card), images=card.model.images),
        f"![{say('hub.card_grid', n=card.samples, seed=card.settings.seed)}]({card.grid})",
        say("hub.card_grid", n=card.samples, seed=card.settings.seed),
        _table(_facts(card), said),
        f"## {say('hub.card_quality')}",
        *_quality(card, said),
        f"## {say('hub.card_load')}",
        say("hub.card_load_text"),
        _example(card),
        f"## {say('hub.card_limits')}",
        *_limits(card, said),
        f"## {say('hub.card_licence')}",
        say(
            "hub.card_licence_none" if card.licence == "unknown" else "hub.card_licence_text",
            name=card.licence,
        ),
    ]
    write_file(path, ("\n\n".join(parts) + "\n").encode())


def without_paths(value: Any) -> Any:
    """A value of JSON in which every path of a computer has become its last name.

    Nobody but the owner needs to know where data and models lay.
    """
    if isinstance(value, Mapping):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    if isinstance(value, str):
        return PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
    return value


def _front_matter(card: Card) -> str:
    fields = card.model.vocabulary.fields if card.model.vocabulary else ()
    task = "text-to-image" if any(isinstance(f, Text) for f in fields) else "unconditional-image-generation"
    lines = [
        f"license: {card.licence}",
        "library_name: alphabar",
        f"pipeline_tag: {task}",
        "tags:",
        "- alphabar",
        *(f"- {tag}" for tag in dict.fromkeys(["diffusion", card.recipe.method["name"]])),
    ]
    if card.data and (known := re.match(r"hf://datasets/([\w.-]+/[\w.-]+)", card.data)):
        lines += ["datasets:", f"- {known[1]}"]
    return "\n".join(["---", *lines, "---"])


def _size(card: Card) -> str:
    height, width = reader_of(card.model.codec).spatial
    return f"{width}×{height}"


def _facts(card: Card) -> list[tuple[Any, Any]]:
    model, settings = card.model, card.settings
    parameters = sum(p.numel() for p in model.denoiser.network.parameters())
    guidance = ", ".join(f"{spec['name']} {spec['scale']:g}" for spec in settings.guidance)
    return [
        (message("hub.fact_data"), card.data or message("hub.not_recorded")),
        (message("hub.fact_images"), f"{model.images:,}"),
        (message("hub.fact_resolution"), f"{_size(card)}, {reader_of(model.codec).channels}"),
        (message("hub.fact_recipe"), card.recipe.name),
        (message("hub.fact_network"), f"{card.recipe.network['name']}, {format_short_count(parameters)}"),
        (message("hub.fact_conditions"), _conditions(model) or message("reporting.none")),
        (
            message("hub.fact_sampling"),
            f"{settings.sampler['name']}, {settings.steps}; {guidance or message('reporting.none')}; "
            f"NFE {nfe_per_sample(model, settings)}",
        ),
    ]


def _conditions(model: Model) -> str:
    fields = model.vocabulary.fields if model.vocabulary else ()
    return ", ".join(f"{f.name} ({f.size})" if isinstance(f, Categorical) else f.name for f in fields)


def _table(rows: list[tuple[Any, ...]], language: str, head: tuple[Any, ...] = ("", "")) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(translated(cell, language) for cell in line)} |" for line in lines)


def _quality(card: Card, language: str) -> list[str]:
    found = card.evaluation
    if found is None:
        return [translated(message("hub.not_evaluated"), language)]
    head = ("", message("hub.value"), message("hub.interval"), message("hub.baseline"), message("hub.better"))
    rows = [
        (
            shown_name(metric, found["extractor"]),
            format_number(metric["value"]),
            _interval(metric.get("interval")),
            "–" if metric.get("baseline") is None else format_number(metric["baseline"]),
            message(f"metrics.{metric['better']}"),
        )
        for metric in found["metrics"]
    ]
    about = message(
        "hub.evaluated",
        n=found["n"],
        reference=_clean(found["reference"]),
        protocol=found["protocol"],
    )
    return [
        translated(about, language),
        _table(rows, language, head),
        translated(message("hub.no_fid"), language),
    ]


def _clean(text: Any) -> Any:
    """A text of an evaluation without paths; a message remains one."""
    if not isinstance(text, Message):
        return without_paths(str(text))
    return message(
        text.identifier, **{key: _clean(v) if isinstance(v, str) else v for key, v in text.values.items()}
    )


def _interval(interval: Any) -> str:
    return "–" if interval is None else f"[{format_number(interval[0])}, {format_number(interval[1])}]"


def _example(card: Card) -> str:
    # A name that the Hub takes (`alphabar.runs.hub.REPOSITORY`).
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", card.model.path.name).strip("-.") or "model"
    return (
        f'```\npip install "alphabar[hub]"\nalphabar sample hf://OWNER/{name} -n 16 --out samples\n```\n\n'
        "```python\nfrom alphabar import last, load_model, sample\n\n"
        f'model = load_model("hf://OWNER/{name}")\nitems = last(sample(model, 16))\n```'
    )


def _limits(card: Card, language: str) -> list[str]:
    copies = (card.evaluation or {}).get("memorization")
    told = [
        message("hub.limit_data"),
        message("hub.limit_detail", size=_size(card)),
        *([message("hub.limit_conditions")] if card.model.vocabulary else []),
        message("hub.limit_people"),
        copies["sentence"] if copies else message("hub.limit_copies"),
    ]
    return ["\n".join(f"- {translated(each, language)}" for each in told)]
