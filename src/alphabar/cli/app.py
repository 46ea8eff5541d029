"""The commands by name. Each is imported when it is called, so that ``alphabar --help`` needs no PyTorch."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

GROUPS = {
    "Data and training": {
        "inspect": ("data", "Report what a data set holds: counts, sizes, classes, bad files, duplicates."),
        "train": ("train", "Train a model on a data set, or go on with a training that was stopped."),
        "finetune": ("train", "Train a model on a data set, starting from the weights of a trained model."),
        "distill": ("train", "Teach a trained model to sample in a few steps."),
        "plan": ("train", "Measure this machine and choose what to train in a given time."),
    },
    "Generation": {
        "sample": ("sample", "Generate samples."),
        "interpolate": ("sample", "Interpolate between samples, or between two conditions."),
        "edit": ("sample", "Generate variations of a picture, with other conditions if wanted."),
    },
    "Restoration": {
        "inpaint": ("restore", "Fill in the missing part of a picture."),
        "upscale": ("restore", "Enlarge a picture."),
        "restore": ("restore", "Undo blur, noise, compression, missing colour or missing pixels."),
        "degrade": ("restore", "Degrade pictures in a known way, to try restoration on."),
    },
    "Evaluation": {
        "evaluate": ("evaluate", "Measure how good samples are: distances, copies, attribute frequencies."),
        "report": ("report", "Write a self-contained page with everything known of a run."),
        "compare": ("report", "Compare runs in one table and one page."),
    },
    "Studio and demonstration": {
        "studio": ("studio", "Open a local web page to generate, restore, compare, train and monitor."),
        "demo": ("demo", "Train for three minutes on the built-in toycars, sample, evaluate and report."),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


class Commands(TyperGroup):
    """A group of commands that imports a command's module when the command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        function = getattr(import_module(f"alphabar.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP)
        single.command(cmd_name)(function)
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and their summaries, group by group, without importing any."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, (_, summary) in commands.items()])


HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, context_settings=HELP
)


def _version(wanted: bool) -> None:
    if wanted:
        from alphabar import __version__

        print(f"alphabar {__version__}")
        raise typer.Exit


@app.callback()
def alphabar(
    extension: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A Python file that registers choices of your own. Repeat for several."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Train diffusion models on your own data, measure how good they are, and use them for every task."""
