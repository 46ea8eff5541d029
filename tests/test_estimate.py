"""What is said before long generating, and the question that it may ask."""

import pytest
import typer

from alphabar.cli import console
from alphabar.cli.console import Estimate, run_to_end
from alphabar.messages import message
from alphabar.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [0.0]
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    return now


def generating(clock, seconds, steps=100, total=100.0):
    for i in range(steps):
        clock[0] += seconds
        yield Progress(message("sampling.stage"), (i + 1) * total / steps, total)
    yield Progress(message("sampling.stage"), total, total, "done")


def estimate(yes=False, before=0.0):
    return Estimate(64, 640, yes, lambda: "11 of 64 files are there.", before)


def test_the_time_is_said_once_and_short_work_says_nothing(clock, capsys):
    assert run_to_end(generating(clock, 1.0), estimate=estimate()) == "done"
    said = [line for line in capsys.readouterr().err.splitlines() if "takes about" in line]
    # A step a second: after three seconds 96 of 100 are left.
    assert said == [said[0]] and "64 samples with 640 network evaluations takes about 1m36s" in said[0]
    run_to_end(generating(clock, 0.1), estimate=estimate())
    assert "takes about" not in capsys.readouterr().err


def test_what_is_there_already_is_no_part_of_the_rest(clock, capsys):
    half = (r for r in generating(clock, 1.0, steps=200) if r.done > 50)
    run_to_end(half, estimate=estimate(before=0.5))
    assert "takes about 1m36s" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("sí", True), ("", False), ("n", False)])
def test_long_work_asks_a_person_at_a_terminal(clock, capsys, monkeypatch, answer, goes_on):
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda: answer)
    if goes_on:
        assert run_to_end(generating(clock, 10.0), estimate=estimate()) == "done"
        return
    with pytest.raises(typer.Exit):
        run_to_end(generating(clock, 10.0), estimate=estimate())
    assert "stopped: 11 of 64 files are there." in capsys.readouterr().err


def test_nobody_is_asked_with_yes_without_a_terminal_and_below_the_limit(clock, monkeypatch):
    def asked():
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", asked)
    run_to_end(generating(clock, 10.0), estimate=estimate())
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    run_to_end(generating(clock, 10.0), estimate=estimate(yes=True))
    run_to_end(generating(clock, 1.0), estimate=estimate())


def test_other_stages_are_not_counted(clock, capsys):
    def reading():
        for i in range(10):
            clock[0] += 100
            yield Progress(message("evaluation.reading_reference"), i, 10)
        yield from generating(clock, 1.0)

    run_to_end(reading(), estimate=estimate())
    assert "takes about 1m36s" in capsys.readouterr().err
