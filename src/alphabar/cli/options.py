"""Options that several commands share, and how their texts are read."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from alphabar.cli.console import run_to_end, say, told_when_stopped
from alphabar.errors import UsageError
from alphabar.messages import Message, message

if TYPE_CHECKING:
    from alphabar.progress import Progress
    from alphabar.runs.model import Model
    from alphabar.sampling.settings import SamplingSettings

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="cli.help.data")]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="cli.help.model")]
ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="cli.help.image")]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="cli.help.out")]
SeedOption = Annotated[int, typer.Option(metavar="N", help="cli.help.seed")]
OpenOption = Annotated[bool, typer.Option("--open", help="cli.help.open")]
PrecisionOption = Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.precision")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="cli.help.yes")]
JsonOption = Annotated[bool, typer.Option("--json", help="cli.help.json")]


class SamplingOptions:
    """What a person has chosen on the command line about how samples are generated."""

    def __init__(self, values: Mapping[str, Any]):
        self.values = dict(values)

    @property
    def conditions(self) -> Sequence[Mapping[str, str]] | None:
        """The conditions: None for those of the training data, () for none.

        A command without the option ``--unconditional`` has no conditions but those that are given.
        Raises UsageError for an attribute without a value, and where none and some are wanted at once.
        """
        v = self.values
        conditions = parse_conditions(
            v.get("classes") or [], v.get("attributes") or [], v.get("prompts") or []
        )
        if conditions and v.get("unconditional"):
            raise UsageError("cli.unconditional")
        return conditions or (() if v.get("unconditional", True) else None)

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        unset = (None, False)
        return [
            name for name, value in self.values.items() if not any(value is u for u in unset) and value != []
        ]

    def settings(self, model: "Model", seed: int, without_guidance: bool = False) -> "SamplingSettings":
        """The settings that follow for a model. without_guidance: leave the recipe's guidance out."""
        from alphabar.guidance import GUIDANCES
        from alphabar.sampling.settings import sampling_settings

        v = self.values
        guidance: dict[str, dict[str, Any]] = {}
        for name in GUIDANCES:
            for setting, (option, _) in guidance_options(name).items():
                if (value := v.get(parameter_name(option))) is not None:
                    guidance.setdefault(name, {})[setting] = value
        interval = v.get("guidance_interval")
        chosen = {key: v[key] for key in ("sampler", "timesteps", "steps", "initial_noise") if key in v}
        if model.vocabulary:
            for condition in self.conditions or ():
                for told in model.vocabulary.far_numbers(condition):
                    say(told)
        return sampling_settings(
            model,
            seed=seed,
            conditions=self.conditions,
            guidance=guidance or ({} if without_guidance else None),
            guidance_interval=None if interval is None else parse_interval(interval),
            **chosen,
        )

    def runtime(
        self, model: "Model", begun: Path, evaluations: int, *settings: "SamplingSettings"
    ) -> "tuple[Model, dict[str, Any]]":
        """The model as it is to compute, and its description (`alphabar.inference.recorded`).

        begun: the JSON file of results that may be there already. evaluations: of the network in all.
        settings: all those that samples are generated with, side by side where they are several.
        """
        from alphabar.guidance import evaluates_early
        from alphabar.inference.recorded import choose_or_repeat
        from alphabar.sampling.sample_folder import batch_size

        return chosen_runtime(
            choose_or_repeat(
                model,
                begun,
                evaluations=evaluations,
                batch=batch_size(model, max(1, len(settings))),
                precision=self.values.get("precision"),
                early=any(evaluates_early(each.guidance) for each in settings),
            ),
            begun.parent,
        )


def chosen_runtime(records: "Iterator[Progress[Any]]", out: Path) -> Any:
    """The result of choosing how a model computes for results in ``out``; what takes no time is not shown."""
    with told_when_stopped(lambda: message("cli.nothing_kept", out=out)):
        first = next(records)
        return run_to_end(chain([first], records)) if first.result is None else first.result


def with_sampling_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command's parameter ``sampling`` becomes all options about how samples are generated.

    Those of guidances follow from their registry. without: names of
    parameters that this command does not have.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = [p for p in sampling_parameters() if p.name not in without]

        @wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            values = {p.name: kwargs.pop(p.name, p.default) for p in options}
            if "sampling" not in kwargs:
                kwargs["sampling"] = SamplingOptions(values)
            command(*args, **kwargs)

        hints = get_type_hints(command, include_extras=True)
        own = [
            p.replace(annotation=hints[p.name])
            for p in inspect.signature(command).parameters.values()
            if p.name != "sampling"
        ]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *options)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__  # type: ignore[attr-defined]
        return run

    return decorate


def sampling_parameters() -> list[inspect.Parameter]:
    """The parameters, with their options, that say how samples are generated."""
    from alphabar.guidance import GUIDANCES

    words = list[str] | None
    made = [
        _option("classes", words, "--class", "NAME", "cli.help.class"),
        _option("attributes", words, "--attribute", "KEY=VALUE", "cli.help.attribute"),
        _option("prompts", words, "--prompt", "TEXT", "cli.help.prompt"),
        _option("unconditional", bool, "--unconditional", None, "cli.help.unconditional"),
    ]
    for name in GUIDANCES:
        for setting, (option, text) in guidance_options(name).items():
            kind = float | None if setting == "scale" else str | None
            made.append(_option(parameter_name(option), kind, f"--{option}", setting.upper(), text))
    return [
        *made,
        _option(
            "guidance_interval", str | None, "--guidance-interval", "LO,HI", "cli.help.guidance_interval"
        ),
        _option("sampler", str | None, "--sampler", "NAME", "cli.help.sampler"),
        _option("timesteps", str | None, "--timesteps", "NAME", "cli.help.timesteps"),
        _option("initial_noise", str | None, "--initial-noise", "NAME", "cli.help.initial_noise"),
        _option("steps", int | None, "--steps", "N", "cli.help.steps"),
        _option("precision", str | None, "--precision", "NAME", "cli.help.precision"),
    ]


def guidance_options(name: str) -> dict[str, tuple[str, str]]:
    """The command-line options of a guidance: setting → (option without dashes, help)."""
    from alphabar.guidance import guidance_class

    guidance = guidance_class(name)
    return {"scale": (guidance.option, guidance.help), **guidance.setting_options}


def parameter_name(option: str) -> str:
    """The name of the Python parameter of an option: "guidance-classifier" → "guidance_classifier"."""
    return option.replace("-", "_")


def _option(name: str, kind: Any, flag: str, metavar: str | None, text: str) -> inspect.Parameter:
    default = False if kind is bool else None
    text = text.identifier if isinstance(text, Message) else text
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(flag, metavar=metavar, help=text, show_default=False)],
    )


def parse_conditions(
    classes: Sequence[str], attributes: Sequence[str], prompts: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The conditions: every combination of the values given for each field, in their order.

    Raises UsageError for an attribute that does not read key=value.
    """
    values: dict[str, list[str]] = {}
    for field, given in (("class", classes), ("caption", prompts)):
        if given:
            values[field] = list(given)
    for text in attributes:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError("cli.attribute", text=text)
        values.setdefault(key.strip(), []).append(value.strip())
    if not values:
        return []
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def parse_interval(text: str) -> tuple[float, float]:
    """Two numbers: '0.2,5'. Raises UsageError for anything else."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("cli.interval", text=text) from None
    return lo, hi


def parse_ema_lengths(text: str) -> list[float]:
    """Numbers: '0.03,0.1,0.2'. Raises UsageError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError("cli.ema_lengths", text=text) from None


def parse_comparison(text: str) -> tuple[str, list[str]]:
    """A key and the values to compare: 'guidance=1,1.5,2', or 'caption=a red car|a blue car'.

    Raises UsageError where there is no value.
    """
    key, _, values = text.partition("=")
    # Sentences may have commas.
    parts = [part.strip() for part in values.split("|" if "|" in values else ",") if part.strip()]
    if not parts:
        raise UsageError("cli.comparison", text=text)
    return key.strip(), parts
