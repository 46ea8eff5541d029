"""The commands: thin over the Python API. Everything heavy is imported where it is used."""

import typer

app = typer.Typer(
    help="Train an image diffusion model on your own pictures, judge it honestly, use it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
