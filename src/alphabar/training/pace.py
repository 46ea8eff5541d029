"""Whether a training runs as fast as the budget planner foresaw, said early, with what to change."""

import json
import math
from dataclasses import replace

from alphabar.formatting import format_duration
from alphabar.messages import Message, message
from alphabar.training.budget import Plan, plan
from alphabar.training.records import Limits

JUDGED_AT, UPDATES = 0.03, 20  # share of the time, and updates, after which the pace is judged
SET_UP = 3  # first updates, which do not count: code is compiled and memory is allocated
# As a factor either way. The best size grows with the root of the compute, and offered sizes are factors of
# two and more apart, so that a rate nearer to the planned one hardly changes the choice.
FAR = 1.5


class Pace:
    """Compares the rate of a training with that of its plan, once.

    limits: of the training. A training without a budget has nothing to compare.
    """

    def __init__(self, planned: Plan, limits: Limits):
        self.planned, self.limits = planned, limits
        self._updates, self._seconds, self._told = 0, 0.0, limits.budget is None

    def after_update(self, seconds: float, share: float) -> list[Message]:
        """What to say after an update that took so long, with a share of the time over; mostly nothing."""
        self._updates += 1
        if self._updates > SET_UP:
            self._seconds += seconds
        if self._told or share < JUDGED_AT or self._updates < SET_UP + UPDATES:
            return []
        self._told = True
        rate = (self._updates - SET_UP) * self.planned.recipe.batch / self._seconds
        return far_from_plan(self.planned, rate, self.limits)


def far_from_plan(planned: Plan, rate: float, limits: Limits) -> list[Message]:
    """What to say of a training at so many images a second, and what to change; nothing near the plan."""
    factor, chosen = rate / planned.chosen.rate, planned.chosen
    if limits.budget is None or limits.whole_budget is None or 1 / FAR < factor < FAR:
        return []
    working = 1 - planned.recipe.monitor.share
    needed = limits.whole_budget - limits.budget + chosen.images / rate / working
    identifier = "training.slower_than_planned" if factor < 1 else "training.faster_than_planned"
    told = [
        message(
            identifier,
            factor=max(factor, 1 / factor),
            rate=rate,
            planned=chosen.rate,
            images=int(rate * limits.budget * working),
            foreseen=chosen.images,
            budget=format_duration(60 * math.ceil(needed / 60)),
        )
    ]
    machine = planned.machine
    speeds = tuple((flops, factor * before) for flops, before in machine.speeds)
    now = replace(
        machine, speeds=speeds, loading=factor * machine.loading, overhead=machine.overhead / factor
    )
    better = plan(now, planned.recipe, planned.pictures, limits.budget).chosen.size
    if better.network["widths"] != chosen.size.network["widths"]:
        network = {key: better.network[key] for key in ("widths", "blocks", "patch") if key in better.network}
        settings = " ".join(
            f"--set network.{key}={json.dumps(value, separators=(',', ':'))}"
            for key, value in network.items()
        )
        budget = format_duration(limits.whole_budget)
        told.append(message("training.other_size", widths=better.shape, budget=budget, settings=settings))
    return told
