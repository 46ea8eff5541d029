"""Help and errors of the command line in the person's language.

An option's help is an identifier of the catalogue. A field in its text, such as ``{samplers}``, is filled
with the names in a registry, so that a choice that is registered anywhere is listed here.
"""

import re
import string
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand

from alphabar.cli.console import localized
from alphabar.errors import unknown
from alphabar.messages import catalogue, message

REGISTRIES = {
    "recipes": ("alphabar.recipes.presets", "RECIPES"),
    "conditions": ("alphabar.conditioning.fields", "CONDITIONS"),
    "samplers": ("alphabar.diffusion.samplers", "SAMPLERS"),
    "timesteps": ("alphabar.diffusion.timesteps", "TIMESTEPS"),
    "initial_noises": ("alphabar.diffusion.initial_noise", "INITIAL_NOISES"),
    "features": ("alphabar.metrics.features", "EXTRACTORS"),
    "solvers": ("alphabar.restoration.solvers.registry", "SOLVERS"),
    "operators": ("alphabar.restoration.operators.registry", "OPERATORS"),
    "targets": ("alphabar.export", "TARGETS"),
}
# What the parser says of values that are no numbers, by the type that was expected.
NUMBERS = {"int": "cli.needs_whole_number", "float": "cli.needs_number"}
UsageProblem: Any = typer.BadParameter.__base__
"""What the parser of options raises, whichever library brings it."""


class HelpfulCommand(TyperCommand):
    """A command whose help stands in the catalogue, with an example and a page of the guide."""

    example = guide = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, what the command does, an example, the guide, arguments, options and settings."""
        assert self.name is not None
        params = self.get_params(ctx)
        arguments = [p for p in params if isinstance(p, TyperArgument)]
        usage = f"{localized(message('cli.usage_options'))} {' '.join(map(_argument, arguments))}"
        formatter.write_usage(f"alphabar {self.name}", usage, f"{localized(message('cli.usage'))} ")
        for text in (
            command_text(self.name),
            message("cli.example", command=self.example),
            message("cli.guide", page=self.guide),
        ):
            formatter.write_paragraph()
            formatter.write_text(localized(text))
        if arguments:
            with formatter.section(localized(message("cli.arguments"))):
                formatter.write_dl([(_metavar(p), help_text(p)) for p in arguments])
        write_options([p for p in params if p not in arguments], formatter)
        if any(p.name == "settings" for p in params):
            from alphabar.recipes.schema import setting_keys

            with formatter.section(localized(message("cli.settings"))):
                formatter.write_text(", ".join(setting_keys()))


def command_text(name: str, short: bool = False) -> str:
    """What a command does; short: the first sentence."""
    text = localized(message(f"cli.command.{name}"))
    return text.partition(". ")[0].removesuffix(".") + "." if short else text


def write_options(options: Iterable[Any], formatter: Any) -> None:
    """Write the section of options of a help page."""
    with formatter.section(localized(message("cli.options"))):
        formatter.write_dl([(_option(p), help_text(p)) for p in options])


def help_text(param: Any) -> str:
    """The help of an option or argument in the person's language, with its default."""
    identifier = param.help or ""
    if param.name in ("help", "install_completion", "show_completion"):
        identifier = f"cli.help.{param.name}"  # these come from the parser
    text = identifier
    if identifier in catalogue():
        english = catalogue()[identifier]["en"]
        names = {field for _, field, _, _ in string.Formatter().parse(english) if field}
        text = localized(message(identifier, **{name: choices(name) for name in names}))
    if param.required and not isinstance(param, TyperArgument):
        return f"{text} {localized(message('cli.required'))}"
    if param.show_default and param.default is not None and param.default is not False:
        return f"{text} {localized(message('cli.default', value=param.default))}"
    return text


def choices(name: str) -> str:
    """The names in a registry, separated by commas."""
    module, registry = REGISTRIES[name]
    return ", ".join(getattr(import_module(module), registry))


def usage_sentence(error: Any) -> str:
    """What the parser of options found wrong, as a sentence of the catalogue."""
    kind, param, context = type(error).__name__, getattr(error, "param", None), error.ctx
    page = context.command.name if context and context.parent else ""
    given = {"page": f"alphabar {page} --help".replace("  ", " ")}
    if kind == "NoSuchOption":
        known = [name for p in context.command.get_params(context) for name in p.opts if name[0] == "-"]
        return unknown("option", error.option_name, known).message
    if kind == "MissingParameter" and param is not None:
        name = _metavar(param) if isinstance(param, TyperArgument) else _option(param)
        return message("cli.missing", name=name, **given)
    if kind == "BadOptionUsage":
        return message("cli.option_without_value", option=error.option_name, **given)
    if kind == "BadParameter" and param is not None:
        wanted = NUMBERS.get(_expected(param))
        if wanted:
            name = _metavar(param) if isinstance(param, TyperArgument) else param.opts[-1]
            return message(wanted, option=name)
    if extra := re.search(r"unexpected extra .*\(([^()]*)\)$", error.message or ""):
        return message("cli.extra_arguments", arguments=extra[1], **given)
    return str(error.format_message())


def _expected(param: Any) -> str:
    """The name of the type that a parameter's value must have."""
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is not None:
        return getattr(descriptor.annotation, "__name__", "")
    return {"integer": "int", "float": "float"}.get(param.type.name, "")


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _argument(param: Any) -> str:
    return _metavar(param) if param.required else f"[{_metavar(param)}]"


def _option(param: Any) -> str:
    names = ", ".join(sorted(param.opts, key=len))
    names += "".join(f" / {name}" for name in param.secondary_opts)
    return names if param.is_flag else f"{names} {_metavar(param)}"
