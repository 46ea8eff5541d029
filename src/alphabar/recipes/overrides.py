"""Recipes with some settings changed, and what differs between two recipes."""

import json
import math
from collections.abc import Iterable
from typing import Any

from alphabar.errors import UsageError, unknown
from alphabar.networks import NETWORKS
from alphabar.recipes.schema import Recipe, make_recipe


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with ``key=value`` settings applied, keys dotted: ``optimizer.learning_rate=1e-4``.

    Values are read as JSON where they are JSON (numbers, true, lists), "none" as no value, and anything else
    as plain text. ``schedule=cosine`` or ``schedule.name=cosine`` names another choice and resets its
    settings to their defaults, except those that are given here, before or after it.
    Raises UsageError for a key that does not exist or a value that does not fit.
    """
    values = recipe.model_dump(mode="json")
    for setting in sorted(settings, key=lambda setting: not _names_choice(values, setting)):
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError("recipes.no_setting", setting=setting)
        *parents, last = key.strip().split(".")
        here = values
        for depth, parent in enumerate(parents):
            if not isinstance(here.get(parent), dict):
                raise unknown("recipe section", ".".join(parents[: depth + 1]), _sections(values))
            here = here[parent]
        value = _parse(text.strip())
        if isinstance(here.get(last), dict) and not isinstance(value, dict):
            if "name" not in here[last]:
                inside = " ".join(f"{key.strip()}.{name}" for name in here[last])
                raise UsageError("recipes.section", key=key.strip(), value=text.strip(), inside=inside)
            value = {"name": value}
        elif last == "name" and parents and value != here.get("name"):
            here.clear()
        here[last] = value
    return make_recipe(values)


def _names_choice(values: dict[str, Any], setting: str) -> bool:
    """Whether a setting replaces a whole section of a recipe, so that it comes before those inside it."""
    *parents, last = setting.partition("=")[0].strip().split(".")
    here: Any = values
    for parent in parents:
        here = here.get(parent) if isinstance(here, dict) else None
    return isinstance(here, dict) and (isinstance(here.get(last), dict) or (last == "name" and bool(parents)))


def differences(a: Recipe, b: Recipe) -> list[str]:
    """What differs between two recipes: an entry ``key: x → y`` for each setting, with dotted keys."""
    return [f"{key}: {x} → {y}" for key, (x, y) in changed(a, b).items()]


def changed(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings that two recipes differ in: dotted key → value in a, value in b."""
    flat_a, flat_b = _flatten(a.model_dump(mode="json")), _flatten(b.model_dump(mode="json"))
    pairs = {key: (flat_a.get(key), flat_b.get(key)) for key in {**flat_a, **flat_b}}
    return {key: (x, y) for key, (x, y) in pairs.items() if x != y}


def named_keys(settings: Iterable[str]) -> set[str]:
    """The dotted keys that ``key=value`` settings name."""
    return {setting.partition("=")[0].strip() for setting in settings}


def enlarged(recipe: Recipe, times: int, settings: Iterable[str] = ()) -> Recipe:
    """The recipe for pictures whose sides are ``times`` as long, at the cost that it has.

    Patches of a U-Net are as many times larger, and what it predicted of pixels it predicts of means over
    squares of times × times pixels (`NetworkDenoiser`). The standard deviation of the noise in such a mean is
    as many times smaller, so the noise levels of training, sampling and guidance are as many times higher
    (Hoogeboom et al. 2023, section 2.1).
    settings: the person's own, "key=value"; what they name stays.
    """
    named, values = named_keys(settings), recipe.model_dump(mode="json")
    if "patch" in values["network"] and not named & {"network", "network.name", "network.patch"}:
        values["network"]["patch"] *= times
        values["coarse"] *= 1 if "coarse" in named else times
    return _with_higher_noise(values, times, named)


def nested(recipe: Recipe, times: int, settings: Iterable[str] = ()) -> Recipe:
    """The recipe for pictures whose sides are ``times`` as long, with the network that it has inside.

    That sees the means over squares of times × times pixels, and a small network beside it predicts the
    detail (`NestedUNet`). Noise levels are as of `enlarged`. settings: the person's own, "key=value"; what
    they name stays. A network that cannot be nested stays as it is.
    """
    named, values = named_keys(settings), recipe.model_dump(mode="json")
    network = values["network"]
    larger = getattr(NETWORKS[network["name"]], "nested", None)
    if larger and not named & {"network", "network.name", "network.times", "coarse"}:
        values["network"] = network | {"name": larger, "times": times * network.get("times", 1)}
        values["coarse"] *= times
    return _with_higher_noise(values, times, named)


def _with_higher_noise(values: dict[str, Any], times: int, named: set[str]) -> Recipe:
    noise = values["noise_distribution"]
    own_noise = {"noise_distribution", "noise_distribution.name", "noise_distribution.mean"}
    if noise["name"] == "log_normal" and not named & own_noise:
        noise["mean"] += math.log(times)
    timesteps = values["sampling"]["timesteps"]
    for level in {"sigma_min", "sigma_max"} & timesteps.keys():
        if not named & {"sampling.timesteps", "sampling.timesteps.name", f"sampling.timesteps.{level}"}:
            timesteps[level] *= times
    if "sampling.guidance" not in named:
        for guidance in values["sampling"]["guidance"]:
            if guidance.get("interval"):
                guidance["interval"] = [level * times for level in guidance["interval"]]
    return make_recipe(values)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _sections(values: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        name
        for key, value in values.items()
        if isinstance(value, dict)
        for name in [prefix + key, *_sections(value, f"{prefix}{key}.")]
    ]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None if text in ("none", "None") else text
