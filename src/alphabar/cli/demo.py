"""The command ``demo``: the whole way from data to a report in a few minutes."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import print_json, say
from alphabar.cli.evaluate import evaluate
from alphabar.cli.options import JsonOption
from alphabar.cli.report import report
from alphabar.cli.sample import sample
from alphabar.cli.train import train


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder for the run and the samples.")] = Path(
        "runs"
    ),
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time to train.")] = "3m",
    as_json: JsonOption = False,
) -> None:
    """Train for three minutes on the built-in toycars, sample, evaluate and write the report.

    For example: alphabar demo
    """
    run, samples = out / "demo", out / "demo-samples"
    say(f"1/4 Training on toycars for {budget}; the run folder is {run}.")
    train("toycars", run=run, budget=budget, settings=["data.size=32", "monitor.share=0.1"])
    say(f"2/4 Generating 64 samples into {samples}.")
    shutil.rmtree(samples, ignore_errors=True)
    sample(run, out=samples, n=64)
    say("3/4 Evaluating 300 samples.")
    evaluate(run, against="toycars", n=300)
    say("4/4 Writing the report.")
    report(run)
    print_json(as_json, {"run": str(run), "samples": str(samples), "report": str(run / "report.html")})
