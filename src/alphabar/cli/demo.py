"""The command ``demo``: the whole way from data to a report in a few minutes."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.console import print_json, say
from alphabar.cli.evaluate import evaluate
from alphabar.cli.options import JsonOption, OpenOption
from alphabar.cli.report import report
from alphabar.cli.sample import sample
from alphabar.cli.train import train_to_end
from alphabar.messages import message


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="cli.help.demo_out")] = Path("runs"),
    budget: Annotated[str, typer.Option(metavar="TIME", help="cli.help.demo_budget")] = "3m",
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train for three minutes on the built-in toycars, sample, evaluate and write the report."""
    run, samples = out / "demo", out / "demo-samples"
    say(message("cli.demo_training", budget=budget, run=run))
    settings = ["data.size=32", "monitor.share=0.1"]
    trained = train_to_end("toycars", False, budget, None, "5m", run=run, settings=settings)
    if trained.stopped:
        return
    say(message("cli.demo_sampling", samples=samples))
    shutil.rmtree(samples, ignore_errors=True)
    sample(run, out=samples, n=64, yes=True)
    say(message("cli.demo_evaluating"))
    evaluate(run, against="toycars", n=300, yes=True)
    say(message("cli.demo_reporting"))
    report(run, show=show)
    print_json(as_json, {"run": str(run), "samples": str(samples), "report": str(run / "report.html")})
