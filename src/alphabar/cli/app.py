"""The commands by name. Each is imported when it is called, so that ``alphabar --help`` needs no PyTorch."""

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from alphabar.cli.console import localized, started_processes
from alphabar.cli.help import HelpfulCommand, command_text, write_options
from alphabar.errors import UsageError, unknown
from alphabar.messages import message

# Group → command → (module, example, page of the guide).
GROUPS = {
    "train": {
        "inspect": ("data", "inspect my_pictures", "train.md"),
        "train": ("train", "train my_pictures --run runs/mine --budget 2h", "train.md"),
        "finetune": ("train", "finetune cars64 my_pictures --run runs/mine --budget 20m", "train.md"),
        "distill": ("train", "distill cars64 stanford_cars --steps 4 --run runs/fast", "train.md"),
        "plan": ("train", "plan my_pictures --budget 2h", "train.md"),
    },
    "use": {
        "sample": (
            "sample",
            "sample cars64 -n 16 --attribute body=SUV --guidance 2 --out suvs",
            "condition.md",
        ),
        "interpolate": (
            "sample",
            "interpolate cars64 --attribute body=SUV --attribute body=coupe --out between",
            "condition.md",
        ),
        "edit": ("sample", "edit cars64 car.png --strength 0.5 -n 4 --out variations", "condition.md"),
        "export": ("export", "export cars64 --to onnx --out cars64-onnx", "export.md"),
    },
    "measure": {
        "evaluate": ("evaluate", "evaluate runs/mine --against my_pictures -n 2000", "evaluate.md"),
        "report": ("report", "report runs/mine", "evaluate.md"),
        "compare": ("report", "compare runs/mine runs/other", "evaluate.md"),
    },
    "restore": {
        "inpaint": ("restore", "inpaint cars64 car.png --mask box:20,20,44,44 --out filled", "restore.md"),
        "upscale": ("restore", "upscale cars64 small.png --factor 4 --out large", "restore.md"),
        "restore": ("restore", "restore cars64 old.jpg --degradation jpeg:10 --out restored", "restore.md"),
        "degrade": ("restore", "degrade car.png --degradation blur:2+noise:0.05 --out blurred", "restore.md"),
    },
    "page": {
        "studio": ("studio", "studio runs", "studio.md"),
        "demo": ("demo", "demo", "train.md"),
    },
}
# Commands whose work several processes share; the others would all do the same.
SHARED = {"train", "finetune", "distill", "sample", "evaluate"}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}
HELP = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """A group of commands that imports a command's module when the command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None where there is none. To complete a name a summary is enough."""
        if cmd_name not in COMMANDS:
            return None
        if "_ALPHABAR_COMPLETE" in os.environ:
            return TyperCommand(cmd_name, short_help=command_text(cmd_name, short=True))
        return load_command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments begin with. Raises UsageError, with the nearest, for others."""
        name, *rest = args
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        if (started := started_processes()) > 1 and name not in SHARED:
            raise UsageError("cli.one_process", command=name, n=started, shared=", ".join(sorted(SHARED)))
        return name, load_command(name), rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and their summaries, group by group, without importing any."""
        formatter.write_usage(
            "alphabar", localized(message("cli.usage_of_all")), f"{localized(message('cli.usage'))} "
        )
        formatter.write_paragraph()
        formatter.write_text(localized(message("cli.about")))
        for group, commands in GROUPS.items():
            with formatter.section(localized(message(f"cli.group.{group}"))):
                formatter.write_dl([(name, command_text(name, short=True)) for name in commands])
        with formatter.section(localized(message("cli.first_steps"))):
            steps = ("sample", "train", "studio")
            formatter.write_dl([(f"alphabar {COMMANDS[name][1]}", "") for name in steps])
        write_options(self.get_params(ctx), formatter)
        formatter.write_paragraph()
        formatter.write_text(localized(message("cli.more_help")))


def load_command(name: str) -> Any:
    """The command of that name, with the options that follow from the registries."""
    module, example, guide = COMMANDS[name]
    function = getattr(import_module(f"alphabar.cli.{module}"), name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP)
    single.command(name, cls=HelpfulCommand)(function)
    command = typer.main.get_command(single)
    assert isinstance(command, HelpfulCommand)
    command.example, command.guide = example, guide
    return command


app = typer.Typer(cls=Commands, rich_markup_mode=None, context_settings=HELP)


def _version(wanted: bool) -> None:
    if wanted:
        from alphabar.versions import version_line

        print(version_line())
        raise typer.Exit


@app.callback()
def alphabar(
    extension: Annotated[list[str] | None, typer.Option(metavar="FILE", help="cli.help.extension")] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="cli.help.version")
    ] = False,
) -> None:
    """Train diffusion models on your own data, measure how good they are, and use them for every task."""
