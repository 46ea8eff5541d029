"""The report: one HTML page without outside links, made from what lies in a run folder.

Everything but the recipe may be missing or cut short; a section without data says what to run.
"""

import base64
import io
import json
import math
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.files import write_file
from alphabar.images import evenly
from alphabar.reporting.plots import FIRST, SECOND, THIRD, Curve, plot, short_count, smooth
from alphabar.runs.run import Run

KINDS = {"gan": "generative adversarial network", "vae": "variational autoencoder"}  # by method


PIECES = ("forward", "reverse", "samples", "nearest")


FRAMES = 12


WIDEST = 2160  # pixels; what a report's width can show on a dense screen


MEANINGS = {
    "frechet": "How far the cloud of samples lies from the cloud of real pictures, as a network sees them.",
    "kid": "The same question asked with a kernel; its mean does not depend on the number of samples.",
    "score": "High when each sample is clearly one thing and all together are many; blind to your pictures.",
    "precision": "The share of samples that lie among real pictures: are they believable?",
    "recall": "The share of real pictures that lie among samples: is nothing left out?",
    "density": "How thickly samples lie where real pictures are; 1 for real pictures, and it may exceed 1.",
    "coverage": "The share of real pictures with a sample near them: a recall that strays do not fool.",
    "frechet_infinite": "What the Fréchet distance would be with samples and real pictures without end.",
}


class Picture(NamedTuple):
    """A PNG of the run, ready for the page."""

    uri: str
    width: int
    height: int


def write_report(run: str | Path) -> Path:
    """Write RUN/report.html and return its path. The same run folder gives the same bytes.

    Raises AlphabarError where the folder is no run, or cannot be written to.
    """
    run = Path(run)
    if not (run / "recipe.toml").is_file():
        raise AlphabarError(f"{run} is no run folder: it holds no recipe.toml; `alphabar train` makes one")
    path = run / "report.html"
    html = page_template("report.html").render(**_contents(run))
    write_file(path, html.encode())
    return path


@cache
def page_template(name: str) -> Template:
    """A page of this room, ready to be filled."""
    environment = Environment(
        loader=FunctionLoader(
            lambda page: files("alphabar.reporting").joinpath(page).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "number": _number, "setting": _setting}
    return environment.get_template(name)


def png_data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that an HTML page can hold."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _contents(run: Path) -> dict[str, Any]:
    """What the template shows, by the names it uses."""
    records = [r for r in Run(run).log.records() if isinstance(r, dict)]
    train, looks, distances = (_of_kind(records, kind) for kind in ("train", "held_out", "distance"))
    images = max((r["images"] for r in records if _finite(r.get("images"))), default=0)
    problems: list[str] = []
    recipe = _read(run / "recipe.toml", tomllib.loads, {}, problems)
    about = _read(run / "report" / "figures.json", json.loads, {}, problems)
    pieces = {name: _mapping(about.get(name)) for name in PIECES}
    judged = [e for e in _read(run / "evaluation.json", json.loads, [], problems) if isinstance(e, dict)]
    evaluations = [_evaluation(e) for e in reversed(judged)]
    method = str(_mapping(recipe.get("method")).get("name", "diffusion"))
    environment = _read(run / "environment.json", json.loads, {}, problems)
    if about.get("terminal_warning"):
        problems.append(about["terminal_warning"])
    return {
        "name": run.resolve().name,
        "kind": KINDS.get(method, "diffusion model"),
        "diffuses": method not in KINDS,
        "argument": shlex.quote(str(run)),
        "more": short_count(2 * images) if images else "500k",
        "facts": _facts(images, train, distances, evaluations, _mapping(about.get("model"))),
        "warnings": problems,
        "pictures": {name: _picture(run / "report" / f"{name}.png") for name in PIECES},
        "sampling": [f"{key} {_setting(value)}" for key, value in pieces["samples"].items()],
        "levels": {name: _levels(pieces[name].get("levels")) for name in ("forward", "reverse")},
        "nearest_distances": [_nearest(d) for d in _list(pieces["nearest"].get("distances"))],
        "copies": _picture(run / "copies.png"),
        "film": _film(run / "samples"),
        "plots": {
            "levels": _levels_plot(looks),
            "progress": _progress_plot(looks),
            "frechet": _distance_plot(distances, "frechet", "Fréchet distance"),
            "kid": _distance_plot(distances, "kid", "kernel distance (KID)"),
            "loss": _train_plot(train, "loss", "training loss"),
            "rate": _train_plot(train, "rate", "images a second"),
        },
        "wait": _median(_series(train, "wait")[1]),
        "distance": distances[-1] if distances else {},
        "evaluations": evaluations,
        "recipe": recipe,
        "recipe_rows": [(key, _setting(value)) for key, value in recipe.items()],
        "environment": list(_flat(environment)),
        "notes": [(f"{_count(r['images'])} images", str(r.get("text"))) for r in _of_kind(records, "note")],
    }


def _read(path: Path, parse: Callable[[str], Any], empty: Any, problems: list[str]) -> Any:
    """The parsed file; ``empty`` where it is missing, or broken, which is added to the problems."""
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return empty
    if not isinstance(value, type(empty)):
        problems.append(f"{path.name} holds something else than it should")
        return empty
    return value


def _picture(path: Path, widest: int = WIDEST) -> Picture | None:
    """None where the file is missing or no whole picture."""
    try:
        with Image.open(path) as image:
            image.thumbnail((widest, 4 * widest))
            return Picture(png_data_uri(image), image.width, image.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r for r in records if r.get("kind") == kind and _finite(r.get("images"))]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pairs(x: Any, y: Any) -> tuple[list[float], list[float]]:
    """Those of x and y where both are numbers."""
    both = [(a, b) for a, b in zip(_list(x), _list(y), strict=False) if _finite(a) and _finite(b)]
    return [a for a, _ in both], [b for _, b in both]


def _series(records: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    return _pairs([r["images"] for r in records], [r.get(key) for r in records])


def _facts(
    images: int,
    train: list[dict[str, Any]],
    distances: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    model: dict[str, Any],
) -> list[tuple[str, str, str]]:
    """The handful of numbers at the top: name, value, remark."""
    facts = [("images seen", short_count(images), "in training")] if images else []
    if train and _finite(train[-1].get("seconds")):
        rate = _median(_series(train, "rate")[1])
        facts.append(("trained for", _duration(train[-1]["seconds"]), f"{_number(rate)} images/s"))
    if _finite(model.get("parameters")):
        cost = f"{_number(model.get('gflop'))} GFLOP a picture"
        facts.append(("parameters", short_count(model["parameters"]), cost))
    if evaluations:
        for m in (m for m in evaluations[0]["measures"] if m.get("key") in ("frechet", "kid")):
            floor = f"real pictures: {_number(m.get('floor'))}"
            facts.append((str(m.get("name")), _number(m.get("value")), floor))
    elif distances:
        last = distances[-1]
        name = f"features {last.get('features')}"
        facts.append(("quick Fréchet distance", _number(last.get("frechet")), name))
    return facts


def _levels(levels: Any) -> list[dict[str, str]]:
    """What stands below the columns of a strip: the time and the signal-to-noise ratio."""
    return [
        {
            "t": f"{level['t']:.2g}" if _finite(level.get("t")) else "",
            "snr": _ratio(level.get("snr")),
        }
        for level in _list(levels)
        if isinstance(level, dict)
    ]


def _ratio(snr: Any) -> str:
    if not isinstance(snr, int | float) or math.isnan(snr):
        return "∞" if snr is None else ""
    if snr > 9999:
        return "∞" if math.isinf(snr) else f"1e{math.floor(math.log10(snr))}"
    return f"{snr:.2g}" if snr < 100 else f"{snr:.0f}"


def _nearest(distance: Any) -> str:
    """The smallest of one sample's distances to its neighbours."""
    numbers = [d for d in (distance if isinstance(distance, list) else [distance]) if _finite(d)]
    return _number(min(numbers)) if numbers else ""


def _film(folder: Path) -> list[tuple[int, Picture]]:
    """Grids of the same noise along the training: images seen, picture."""
    paths = sorted((p for p in folder.glob("*.png") if p.stem.isdecimal()), key=lambda p: int(p.stem))
    frames = [(int(paths[i].stem), _picture(paths[i], widest=560)) for i in evenly(len(paths), FRAMES)]
    return [(images, picture) for images, picture in frames if picture]


def _levels_plot(looks: list[dict[str, Any]]) -> Markup | None:
    """The error for training and held-out pictures at the last look."""
    lines = ("train_error", "training", SECOND, "--"), ("error", "held out", FIRST, "-")
    return _curves(
        "levels",
        [
            Curve(label, x, y, colour, style, points=True)
            for key, label, colour, style in lines
            for _, x, y in _by_level(looks, key)[-1:]
        ],
        x_label="noisier  ←  log SNR  →  cleaner",
        y_label="squared error",
        description="Error of the denoised picture against the noise level, training and held-out pictures",
    )


def _progress_plot(looks: list[dict[str, Any]]) -> Markup | None:
    """The held-out error, or the training error where none is held out; the later the stronger."""
    drawn = _by_level(looks, "error") or _by_level(looks, "train_error")
    # Learning slows down, so moments further and further apart show as much change each.
    chosen = sorted({round(len(drawn) ** (k / 3)) - 1 for k in range(4)}) if drawn else []
    opacities = np.linspace(1, 0.25, len(chosen))[::-1].tolist()
    return _curves(
        "progress",
        [
            Curve(f"{short_count(images)} images", x, y, THIRD, opacity=opacity)
            for (images, x, y), opacity in zip((drawn[i] for i in chosen), opacities, strict=True)
        ],
        x_label="noisier  ←  log SNR  →  cleaner",
        y_label="squared error",
        description="Error of the denoised picture against the noise level at moments of the training",
    )


def _by_level(looks: list[dict[str, Any]], key: str) -> list[tuple[int, list[float], list[float]]]:
    """For each look that has them: images seen, log SNRs, errors."""
    drawn = [(look["images"], *_pairs(look.get("levels"), look.get(key))) for look in looks]
    return [(images, x, y) for images, x, y in drawn if x]


def _distance_plot(distances: list[dict[str, Any]], key: str, name: str) -> Markup | None:
    measured = [d for d in distances if _finite(d.get(key))]
    x, y = _series(measured, key)
    _, errors = _series(measured, f"{key}_error")
    # The floor is that of the Fréchet distance; a KID of real pictures against real ones is 0 on average.
    floors = [d["floor"] for d in measured if _finite(d.get("floor"))] if key == "frechet" else [0.0]
    return _curves(
        key,
        [Curve(name, x, y, error=errors if len(errors) == len(y) else None, points=True)] if x else [],
        x_label="images seen",
        y_label=name,
        description=f"{name} of samples from the training pictures against images seen",
        counts=True,
        log_y=False,
        floor=floors[-1] if floors else None,
    )


def _train_plot(train: list[dict[str, Any]], key: str, label: str) -> Markup | None:
    x, y = smooth(*_series(train, key))
    return _curves(
        key,
        [Curve(None, x, y, FIRST if key == "loss" else THIRD, points=len(x) < 3)] if x else [],
        x_label="images seen",
        y_label=label,
        description=f"{label} against images seen",
        counts=True,
        log_y=key == "loss",
    )


def _curves(name: str, curves: Sequence[Curve], *, log_y: bool = True, **settings: Any) -> Markup | None:
    """The plot, or None where there is nothing to draw."""
    if not curves:
        return None
    positive = all(value > 0 for curve in curves for value in curve.y)
    return Markup(plot(f"plot-{name}", curves, log_y=log_y and positive, **settings))


def _evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    """One entry of evaluation.json. All but what is shown elsewhere is the protocol: name, value."""
    shown = (
        "measures", "warnings", "images", "when", "held_out", "memorization", "shares", "drift", "brightness",
        "notes", "agreements",
    )  # fmt: skip
    held_out = _mapping(evaluation.get("held_out"))
    return {
        "images": evaluation.get("images"),
        "when": str(evaluation.get("when", ""))[:16].replace("T", " "),
        "measures": _measures(evaluation),
        "warnings": _list(evaluation.get("warnings")),
        "protocol": [(k.replace("_", " "), _setting(v)) for k, v in evaluation.items() if k not in shown],
        "held_out": {"measures": _measures(held_out), "warnings": []},
        "held_out_reference": _setting(held_out.get("reference")),
        "copies": _mapping(evaluation.get("memorization")).get("sentence"),
        "shares": [_share_rows(s) for s in _list(evaluation.get("shares")) if isinstance(s, dict)],
        "agreements": [_asked_rows(a) for a in _list(evaluation.get("agreements")) if isinstance(a, dict)],
        "drift": [
            (str(d.get("look")), f"{_signed(d.get('difference'))} of 255",
             f"from {_signed(d.get('low'))} to {_signed(d.get('high'))}", _number(d.get("data")))
            for d in _list(evaluation.get("drift"))
            if isinstance(d, dict)
        ],
        "notes": [str(note) for note in _list(evaluation.get("notes"))],
    }  # fmt: skip


def _measures(judgement: dict[str, Any]) -> list[dict[str, Any]]:
    measures = [m for m in _list(judgement.get("measures")) if isinstance(m, dict)]
    return [
        m | {"meaning": MEANINGS.get(str(m.get("key"))), "interval": _interval(m.get("interval"))}
        for m in measures
    ]


def _interval(interval: Any) -> str | None:
    ends = [_number(end) for end in _list(interval) if _finite(end)]
    return f"{ends[0]} to {ends[1]}" if len(ends) == 2 else None


def _share_rows(shares: dict[str, Any]) -> dict[str, Any]:
    """The shares of one attribute as words, those that differ first."""
    rows = [s for s in _list(shares.get("shares")) if isinstance(s, dict)]
    rows.sort(key=lambda s: not s.get("verdict"))
    return {
        "attribute": str(shares.get("attribute")),
        "accuracy": _percent(shares.get("accuracy")),
        "imbalance": _number(shares.get("imbalance")),
        "wrong": sum(bool(s.get("verdict")) for s in rows),
        "rows": [
            (
                str(s.get("value")),
                _percent(s.get("samples")),
                f"{_percent(s.get('low'))} to {_percent(s.get('high'))}",
                _percent(s.get("data")),
                {"under": "too seldom", "over": "too often"}.get(str(s.get("verdict")), ""),
            )
            for s in rows
        ],
    }


def _asked_rows(agreement: dict[str, Any]) -> dict[str, Any]:
    """How often samples are as asked, and how far each kind is from its own pictures, the furthest first."""
    rows = [d for d in _list(agreement.get("distances")) if isinstance(d, dict)]
    rows.sort(key=lambda d: -d["kid"] if _finite(d.get("kid")) else 0.0)
    return {
        "attribute": str(agreement.get("attribute")),
        "n": agreement.get("n"),
        "accuracy": _percent(agreement.get("accuracy")),
        "agreed": _percent(agreement.get("agreed")),
        "interval": f"{_percent(agreement.get('low'))} to {_percent(agreement.get('high'))}",
        "rows": [
            (
                str(d.get("value")),
                _number(d.get("kid")),
                f"{_number(d.get('low'))} to {_number(d.get('high'))}",
                str(d.get("n")),
                str(d.get("reference_n")),
            )
            for d in rows
        ],
    }


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if _finite(value) else "–"


def _signed(value: Any) -> str:
    return f"{value:+.1f}" if _finite(value) else "–"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and "name" not in value:
            yield from _flat(value, f"{prefix}{key} · ")
        else:
            yield f"{prefix}{key}", _setting(value)


def _setting(value: Any) -> str:
    """A recipe's value: ``ancestral (clamp = true)`` for a choice with settings."""
    if isinstance(value, dict):
        rest = ", ".join(f"{key} = {_setting(v)}" for key, v in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name} ({rest})" if name and rest else name or rest
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_setting, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _count(value) if abs(value) >= 10_000 else str(value)
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: Any) -> str:
    if not _finite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
