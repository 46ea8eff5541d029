"""TODO-DOC from cli"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.app import app
from alphabar.cli.console import print_json, say
from alphabar.cli.evaluate import evaluate
from alphabar.cli.options import JsonOption
from alphabar.cli.report import report
from alphabar.cli.sample import sample
from alphabar.cli.train import train


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder for the run and the samples.")] = Path(
        "runs"
    ),
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time to train.")] = "3m",
    as_json: JsonOption = False,
) -> None:
    """Train on the built-in toycars for three minutes, sample, evaluate and write the report."""
    run, pictures = out / "demo", out / "demo-samples"
    say(f"1/4 training on toycars for {budget}, into {run}")
    train("toycars", run=run, budget=budget, settings=["data.size=32", "monitor.share=0.1"])
    say(f"2/4 drawing 64 pictures into {pictures}")
    shutil.rmtree(pictures, ignore_errors=True)
    sample(run, out=pictures, n=64)
    say("3/4 judging 300 samples")
    evaluate(run, against="toycars", n=300)
    say("4/4 writing the report")
    report(run)
    print_json(as_json, {"run": str(run), "samples": str(pictures), "report": str(run / "report.html")})
