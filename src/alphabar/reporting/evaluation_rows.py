"""An entry of evaluation.json in the form that the report's template takes."""

from typing import Any

from alphabar.messages import Message, catalogue, message
from alphabar.metrics.suite import metric_name
from alphabar.reporting.values import (
    bracketed,
    finite,
    items,
    mapping,
    mappings,
    number,
    percent,
    setting,
    signed,
)

SHOWN_ELSEWHERE = (
    "metrics", "warnings", "images", "when", "held_out", "memorization", "attribute_frequencies",
    "appearance", "brightness", "notes", "condition_agreement",
)  # fmt: skip

BETTER = {"lower": message("metrics.lower"), "higher": message("metrics.higher")}

VERDICTS = {"under": message("reporting.too_rare"), "over": message("reporting.too_frequent")}


def evaluation_rows(evaluation: dict[str, Any]) -> dict[str, Any]:
    """One entry of evaluation.json. All that is shown nowhere else is the protocol: (name, value)."""
    held_out = {"extractor": evaluation.get("extractor")} | mapping(evaluation.get("held_out"))
    copies = mapping(evaluation.get("memorization"))
    warnings = items(evaluation.get("warnings"))
    return {
        "images": evaluation.get("images"),
        "when": str(evaluation.get("when", ""))[:16].replace("T", " "),
        "n": setting(evaluation.get("n")),
        "metrics": _metrics(evaluation),
        "about": _about(evaluation),
        "warnings": warnings,
        "singular": any(getattr(w, "identifier", "") == "metrics.singular" for w in warnings),
        "protocol": [
            (known_as(k), _protocol_value(k, v))
            for k, v in evaluation.items()
            if k not in SHOWN_ELSEWHERE and v is not None
        ],
        "held_out": {"metrics": _metrics(held_out), "about": _about(held_out), "warnings": []},
        "held_out_reference": _plain(held_out.get("reference")),
        "copies": copies.get("sentence"),
        "copied": copies.get("copies"),
        "copied_by_chance": _by_chance(copies),
        "frequencies": [_frequencies(f) for f in mappings(evaluation.get("attribute_frequencies"))],
        "agreements": [_agreement(a) for a in mappings(evaluation.get("condition_agreement"))],
        "appearance": [
            (
                known_as(str(a.get("statistic"))),
                signed(a.get("difference")),
                f"[{signed(a.get('low'))}, {signed(a.get('high'))}]",
                number(a.get("data")),
            )
            for a in mappings(evaluation.get("appearance"))
        ],
        "notes": items(evaluation.get("notes")),
    }


def known_as(key: str) -> str:
    """A key of a JSON file in words."""
    identifier = f"reporting.row_{key.replace(' · ', '_')}"
    return message(identifier) if identifier in catalogue() else key.replace("_", " ")


def shown_name(metric: dict[str, Any], features: Any) -> Any:
    """The name of a number, in any language where its key is known; that of the file otherwise."""
    key = str(metric.get("key"))
    known = f"metrics.name_{key}" in catalogue() and isinstance(features, str)
    return metric_name(key, features) if known else metric.get("name", "?")


def _plain(value: Any) -> str:
    """A message as it is, anything else as a setting."""
    return value if isinstance(value, Message) else setting(value)


def _protocol_value(key: str, value: Any) -> str:
    if value == [] or value == {}:
        return message("reporting.none")
    if isinstance(value, list):
        return "; ".join(map(setting, value))
    if key == "seconds_per_sample":
        return f"{number(value)} s"
    if key == "conditions" and value == "as the data":
        return message("reporting.as_the_data")
    if key == "machine" and isinstance(value, dict):
        known = {name: _plain(value.get(name)) for name in ("machine", "cores", "memory", "load")}
        return message("reporting.machine", **known)
    return _plain(value)


def _about(report: dict[str, Any]) -> list[str]:
    """What must stand beside a table of numbers: how many samples, against what, what its baseline is."""
    if not report.get("metrics"):
        return []
    reference = _plain(report.get("reference"))
    lines: list[str] = [message("reporting.against", n=setting(report.get("n")), reference=reference)]
    if finite(report.get("baseline_n")) and report["baseline_n"]:
        others = setting(report.get("baseline_reference_n"))
        lines.append(message("reporting.baseline_of", n=setting(report["baseline_n"]), others=others))
    return lines


def _metrics(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        m
        | {
            "name": shown_name(m, report.get("extractor")),
            "meaning": _meaning(str(m.get("key"))),
            "interval": bracketed(m.get("interval")),
            "better": BETTER.get(str(m.get("better")), m.get("better", "")),
        }
        for m in sorted(mappings(report.get("metrics")), key=lambda m: m.get("key") != "kid")
    ]


def _meaning(key: str) -> str:
    identifier = f"reporting.meaning_{key}"
    return message(identifier) if identifier in catalogue() else ""


def _by_chance(copies: dict[str, Any]) -> str:
    chance = mapping(copies.get("thresholds")).get("false_alarms")
    return message("reporting.by_chance", share=percent(chance)) if finite(chance) else ""


def _frequencies(attribute: dict[str, Any]) -> dict[str, Any]:
    """The values of one attribute with their frequencies, those that differ from the data first."""
    rows = sorted(mappings(attribute.get("frequencies")), key=lambda f: not f.get("verdict"))
    wrong = sum(bool(f.get("verdict")) for f in rows)
    found: str = message("reporting.frequencies_equal")
    if wrong:
        found = message("reporting.frequencies_differ", wrong=wrong, of=len(rows))
    return {
        "summary": message(
            "reporting.frequencies",
            attribute=attribute.get("attribute"),
            finding=found,
            accuracy=percent(attribute.get("accuracy")),
            imbalance=number(attribute.get("imbalance")),
        ),
        "wrong": wrong,
        "rows": [
            (
                str(f.get("value")),
                percent(f.get("samples")),
                f"[{percent(f.get('low'))}, {percent(f.get('high'))}]",
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
        "summary": message(
            "reporting.agreement",
            attribute=agreement.get("attribute"),
            agreed=percent(agreement.get("agreed")),
            n=_plain(agreement.get("n")),
            interval=f"[{percent(agreement.get('low'))}, {percent(agreement.get('high'))}]",
            accuracy=percent(agreement.get("accuracy")),
        ),
        "rows": [
            (
                str(d.get("value")),
                number(d.get("kid")),
                bracketed([d.get("low"), d.get("high")]) or "–",
                str(d.get("n")),
                str(d.get("reference_n")),
            )
            for d in rows
        ],
    }
