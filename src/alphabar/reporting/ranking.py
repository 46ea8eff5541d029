"""Which recipe is better by one metric, where there are enough seeds to say so."""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_ind_from_stats

from alphabar.formatting import format_number
from alphabar.messages import Message, message

SEEDS = 3
"""Runs of one recipe, equal but for the seed, that a ranking takes on either side."""

CONFIDENCE = 0.95


class Contestant(NamedTuple):
    """A run in a ranking. settings: the whole recipe but for its seed. images: seen in training."""

    name: str
    recipe: str
    settings: str
    images: int


def rank(runs: Sequence[Contestant], row: Sequence[dict[str, Any] | None]) -> Message:
    """Which recipe is better by one metric, or why that cannot be said. row: the metric of each run, or None.

    A recipe's number varies with the seed of the training more than with the samples: Welch's t-test between
    the seeds of each pair of recipes, at 95 % over all pairs (Bonferroni).
    """
    values: dict[str, list[float]] = {}
    higher = True
    for recipe, metric in zip(repeats(runs), row, strict=True):
        if metric:
            values.setdefault(recipe, []).append(metric["value"])
            higher = metric["better"] == "higher"
    if sum(map(len, values.values())) == 1:
        return message("reporting.one_run")
    pairs = list(combinations(values, 2))
    if not pairs:
        return message("reporting.repeats_only")
    few = [f"{recipe} ({len(of_recipe)})" for recipe, of_recipe in values.items() if len(of_recipe) < SEEDS]
    if few:
        return message("reporting.too_few_seeds", seeds=SEEDS, few=", ".join(few))
    findings = [_finding(values, *pair, len(pairs), higher) for pair in pairs]
    return reduce(lambda first, rest: message("metrics.joined", first=first, rest=rest), findings)


def _finding(values: dict[str, list[float]], a: str, b: str, pairs: int, higher: bool) -> Message:
    """What a t-test says about two recipes, of so many pairs that are tested."""
    p = _welch(values[a], values[b])
    if p * pairs >= 1 - CONFIDENCE:
        return message("reporting.indistinguishable", first=a, second=b)
    a_first = (np.mean(values[a]) > np.mean(values[b])) == higher
    first, second = (a, b) if a_first else (b, a)
    return message("reporting.better", first=first, second=second, p=format_number(p * pairs, 2))


def _welch(a: Sequence[float], b: Sequence[float]) -> float:
    """p of Welch's t-test; 1 where no two seeds of a recipe differ, which says nothing of their variation."""
    if len(set(a)) == len(set(b)) == 1:
        return 1.0
    (mean_a, std_a), (mean_b, std_b) = ((np.mean(v), np.std(v, ddof=1)) for v in (a, b))
    return float(ttest_ind_from_stats(mean_a, std_a, len(a), mean_b, std_b, len(b), equal_var=False).pvalue)


def repeats(runs: Sequence[Contestant]) -> list[str]:
    """For each run the name of what it is a repeat of: one recipe but for the seed, images seen within a
    tenth.

    That is the recipe's name where it distinguishes them, else the name of the first such run.
    """
    firsts: list[Contestant] = []
    found: list[Contestant] = []
    for run in runs:
        first = next((f for f in firsts if f.settings == run.settings and _near(f, run)), run)
        if first is run:
            firsts.append(run)
        found.append(first)
    recipes = [first.recipe for first in firsts]
    return [first.recipe if recipes.count(first.recipe) == 1 else first.name for first in found]


def _near(a: Contestant, b: Contestant) -> bool:
    return abs(a.images - b.images) <= 0.1 * max(a.images, b.images)
