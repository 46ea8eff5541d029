"""An entry of evaluation.json in the form that the report's template takes."""

from typing import Any

from alphabar.reporting.values import (
    finite,
    interval,
    items,
    mapping,
    mappings,
    number,
    percent,
    setting,
    signed,
)

MEANINGS = {
    "frechet": "The distance between Gaussians fitted to the features of samples and of real images.",
    "kid": "The kernel distance of the features; its mean does not depend on the number of samples.",
    "score": "High when each sample is clearly one thing and all together are many; it ignores your images.",
    "precision": "The share of samples that lie among real images: are they believable?",
    "recall": "The share of real images that lie among samples: is nothing left out?",
    "density": "How densely samples lie where real images are; 1 for real images, and it may exceed 1.",
    "coverage": "The share of real images with a sample nearby: a recall that outliers do not distort.",
    "frechet_infinite": "What the Fréchet distance would be with infinitely many samples and real images.",
}

SHOWN_ELSEWHERE = (
    "metrics", "warnings", "images", "when", "held_out", "memorization", "attribute_frequencies",
    "appearance", "brightness", "notes", "condition_agreement",
)  # fmt: skip

VERDICTS = {"under": "too rare", "over": "too frequent"}


def evaluation_rows(evaluation: dict[str, Any]) -> dict[str, Any]:
    """One entry of evaluation.json. All that is shown nowhere else is the protocol: (name, value)."""
    held_out = mapping(evaluation.get("held_out"))
    return {
        "images": evaluation.get("images"),
        "when": str(evaluation.get("when", ""))[:16].replace("T", " "),
        "metrics": _metrics(evaluation),
        "warnings": items(evaluation.get("warnings")),
        "protocol": [
            (k.replace("_", " "), setting(v)) for k, v in evaluation.items() if k not in SHOWN_ELSEWHERE
        ],
        "held_out": {"metrics": _metrics(held_out), "warnings": []},
        "held_out_reference": setting(held_out.get("reference")),
        "copies": mapping(evaluation.get("memorization")).get("sentence"),
        "frequencies": [_frequencies(f) for f in mappings(evaluation.get("attribute_frequencies"))],
        "agreements": [_agreement(a) for a in mappings(evaluation.get("condition_agreement"))],
        "appearance": [
            (
                str(a.get("statistic")),
                f"{signed(a.get('difference'))} of 255",
                f"from {signed(a.get('low'))} to {signed(a.get('high'))}",
                number(a.get("data")),
            )
            for a in mappings(evaluation.get("appearance"))
        ],
        "notes": [str(note) for note in items(evaluation.get("notes"))],
    }


def _metrics(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        m | {"meaning": MEANINGS.get(str(m.get("key"))), "interval": interval(m.get("interval"))}
        for m in mappings(report.get("metrics"))
    ]


def _frequencies(attribute: dict[str, Any]) -> dict[str, Any]:
    """The values of one attribute with their frequencies, those that differ from the data first."""
    rows = sorted(mappings(attribute.get("frequencies")), key=lambda f: not f.get("verdict"))
    return {
        "attribute": str(attribute.get("attribute")),
        "accuracy": percent(attribute.get("accuracy")),
        "imbalance": number(attribute.get("imbalance")),
        "wrong": sum(bool(f.get("verdict")) for f in rows),
        "rows": [
            (
                str(f.get("value")),
                percent(f.get("samples")),
                f"{percent(f.get('low'))} to {percent(f.get('high'))}",
                percent(f.get("data")),
                VERDICTS.get(str(f.get("verdict")), ""),
            )
            for f in rows
        ],
    }


def _agreement(agreement: dict[str, Any]) -> dict[str, Any]:
    """How often samples agree with their condition, and how far each value is from its own images."""
    rows = mappings(agreement.get("distances"))
    rows.sort(key=lambda d: -d["kid"] if finite(d.get("kid")) else 0.0)
    return {
        "attribute": str(agreement.get("attribute")),
        "n": agreement.get("n"),
        "accuracy": percent(agreement.get("accuracy")),
        "agreed": percent(agreement.get("agreed")),
        "interval": f"{percent(agreement.get('low'))} to {percent(agreement.get('high'))}",
        "rows": [
            (
                str(d.get("value")),
                number(d.get("kid")),
                f"{number(d.get('low'))} to {number(d.get('high'))}",
                str(d.get("n")),
                str(d.get("reference_n")),
            )
            for d in rows
        ],
    }
