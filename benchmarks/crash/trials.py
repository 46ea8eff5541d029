"""Trials whose outcomes are written down at once, so that a campaign can be stopped and resumed."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from common import note


@dataclass(frozen=True)
class Trial:
    """Something to try. group: the row of the table that it counts in, as ``count`` trials.

    do: returns what went wrong.
    """

    name: str
    group: str
    do: Callable[[], list[str]]
    count: int = 1


class Outcomes:
    """The outcomes of a campaign, one JSON object a line of a file."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, dict] = {(outcome := json.loads(line))["name"]: outcome for line in lines}

    def run(self, trials: Iterable[Trial], until: float) -> bool:
        """Runs the trials that have no outcome yet, until that time. Returns whether all are done."""
        for trial in trials:
            if trial.name in self.known:
                continue
            if time.monotonic() > until:
                return False
            outcome = {"name": trial.name, "group": trial.group, "count": trial.count, "faults": trial.do()}
            self.known[trial.name] = outcome
            with open(self.path, "a") as file:
                file.write(json.dumps(outcome) + "\n")
            for fault in outcome["faults"]:
                note(f"{trial.name}: {fault}")
        return True

    def rows(self) -> list[tuple[str, str, str]]:
        """For each group: its name, the number of trials, the number of faults."""
        tried, wrong = Counter(), Counter()
        for outcome in self.known.values():
            tried[outcome["group"]] += outcome["count"]
            wrong[outcome["group"]] += len(outcome["faults"])
        return [(group, f"{n:,}", str(wrong[group])) for group, n in tried.items()]

    def wrong(self) -> list[tuple[str, str]]:
        """Name and fault of every trial that went wrong."""
        return [(name, fault) for name, outcome in self.known.items() for fault in outcome["faults"]]
