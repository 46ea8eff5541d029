"""The commands ``sample``, ``interpolate`` and ``edit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphabar.cli.console import open_path, print_json, run_to_end, say
from alphabar.cli.options import (
    ImageArgument,
    JsonOption,
    ModelArgument,
    OpenOption,
    OutOption,
    SamplingOptions,
    SeedOption,
    parse_comparison,
    with_sampling_options,
)
from alphabar.errors import AlphabarError
from alphabar.messages import message

if TYPE_CHECKING:
    from torch import Tensor

    from alphabar.runs.model import Model
    from alphabar.sampling.settings import SamplingSettings


@with_sampling_options()
def sample(
    model: ModelArgument,
    out: OutOption,
    sampling: SamplingOptions,
    n: Annotated[
        int | None,
        typer.Option("-n", metavar="N", help="cli.help.sample_n"),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="KEY=A,B,…", help="cli.help.compare"),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="LENGTH", help="cli.help.ema"),
    ] = None,
    seed: SeedOption = 0,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate samples: a file for each, and in DIR/overview all of them and the reverse process."""
    from alphabar.images import image_grid, image_strip
    from alphabar.runs.model import load_model
    from alphabar.sampling.comparison import per_sample_settings
    from alphabar.sampling.outputs import ReverseProcessRecorder, check_free, sampling_metadata, write_samples
    from alphabar.sampling.sample import sample as generate

    comparison = parse_comparison(compare) if compare else None
    loaded = load_model(model, ema=ema)
    settings = sampling.settings(loaded, seed)
    check_free(out)
    about = sampling_metadata(loaded, settings, str(model), **({} if ema is None else {"ema": ema}))
    if comparison:
        _sample_comparison(loaded, settings, out, about, *comparison, 8 if n is None else n, as_json)
        open_path(_overview(out), show)
        return
    n = 64 if n is None else n
    recorder = ReverseProcessRecorder(loaded, settings.steps)
    items = run_to_end(map(recorder.record, generate(loaded, n, settings)))
    previews = loaded.codec.preview(items[:100])
    overview = {"grid": image_grid(previews), "process": image_strip(recorder.columns)}
    write_samples(items, out, loaded.codec, about, overview, per_sample_settings(settings, n))
    say(message("cli.samples_written", n=n, out=out, overview=_overview(out)))
    open_path(_overview(out), show)
    print_json(as_json, {"out": str(out), "n": n, **about})


def _sample_comparison(
    model: "Model",
    settings: "SamplingSettings",
    out: Path,
    about: dict[str, Any],
    key: str,
    values: list[str],
    n: int,
    as_json: bool,
) -> None:
    """Generate n samples with each value of a setting, from the same noise, and write them side by side."""
    from alphabar.images import image_grid
    from alphabar.sampling.comparison import comparison_settings, side_by_side
    from alphabar.sampling.outputs import write_samples
    from alphabar.sampling.sample import sample as generate

    variants = comparison_settings(model, settings, key, values)
    works = [generate(model, n, variant) for variant in variants]
    items = [run_to_end(work, f"{key}={v}") for work, v in zip(works, values, strict=True)]
    rows, each = side_by_side(items, variants)
    about = {**about, "compare": {key: values}}
    overview = {"grid": image_grid(model.codec.preview(rows), len(values))}
    write_samples(rows, out, model.codec, about, overview, each)
    say(message("cli.samples_written", n=len(rows), out=out, overview=_overview(out)))
    print_json(as_json, {"out": str(out), "n": len(rows), **about})


@with_sampling_options("unconditional", "timesteps", "initial_noise")
def interpolate(
    model: ModelArgument,
    out: OutOption,
    sampling: SamplingOptions,
    rows: Annotated[int, typer.Option(metavar="N", help="cli.help.rows")] = 4,
    columns: Annotated[int, typer.Option(metavar="N", help="cli.help.columns")] = 8,
    seed: SeedOption = 0,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Interpolate between samples, or with the same noise between two conditions."""
    from alphabar.images import image_grid
    from alphabar.runs.model import load_model
    from alphabar.sampling.interpolate import interpolate as interpolated
    from alphabar.sampling.outputs import check_free, sampling_metadata, write_samples
    from alphabar.sampling.settings import deterministic

    loaded = load_model(model)
    settings = sampling.settings(loaded, seed)
    if not sampling.values.get("sampler"):
        settings = deterministic(loaded, settings)
    check_free(out)
    items = run_to_end(interpolated(loaded, settings, rows=rows, columns=columns))
    about = sampling_metadata(loaded, settings, str(model), rows=rows, columns=columns)
    overview = {"grid": image_grid(loaded.codec.preview(items), columns)}
    write_samples(items, out, loaded.codec, about, overview)
    say(message("cli.samples_written", n=len(items), out=out, overview=_overview(out)))
    open_path(_overview(out), show)
    print_json(as_json, {"out": str(out), **about})


@with_sampling_options("unconditional", "timesteps", "initial_noise")
def edit(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    sampling: SamplingOptions,
    strength: Annotated[
        float,
        typer.Option(metavar="S", help="cli.help.strength"),
    ] = 0.6,
    invert: Annotated[bool, typer.Option("--invert", help="cli.help.invert")] = False,
    n: Annotated[int, typer.Option("-n", metavar="N", help="cli.help.edit_n")] = 1,
    seed: SeedOption = 0,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate variations of a picture that resemble it from afar, with other conditions if wanted."""
    import torch

    from alphabar.images import image_grid
    from alphabar.runs.model import load_model
    from alphabar.sampling.edit import edit as edited
    from alphabar.sampling.outputs import check_free, sampling_metadata, write_samples
    from alphabar.sampling.settings import deterministic

    loaded = load_model(model)
    item = _read_item(loaded, image)
    # Inversion finds the noise without guidance, so sampling from it is without the recipe's guidance too.
    settings = sampling.settings(loaded, seed, without_guidance=invert)
    if not sampling.values.get("sampler"):
        settings = deterministic(loaded, settings)
    check_free(out)
    signal = loaded.codec.encode(item[None])[0]
    items = run_to_end(edited(loaded, signal, settings, strength=strength, invert=invert, n=n))
    about = sampling_metadata(
        loaded, settings, str(model), image=str(image), strength=strength, invert=invert
    )
    shown = loaded.codec.preview(torch.cat([item[None], items]))
    write_samples(items, out, loaded.codec, about, {"grid": image_grid(shown, len(shown))})
    say(message("cli.samples_written", n=len(items), out=out, overview=_overview(out)))
    open_path(_overview(out), show)
    print_json(as_json, {"out": str(out), "n": n, **about})


def _overview(out: Path) -> Path:
    """What to look at first in a folder of samples."""
    return out / "overview" / "grid.png"


def _read_item(model: "Model", path: Path) -> "Tensor":
    """The file as an item of the model's codec. Raises AlphabarError naming a file that cannot be read."""
    import torch

    from alphabar.codecs.base import Unreadable

    fit = model.recipe.data.fit
    try:
        # The box of a fit is the data set's; a single picture has none.
        return torch.from_numpy(
            model.codec.read(path.read_bytes(), "crop" if fit == "box" else fit).item.copy()
        )
    except (OSError, Unreadable) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise AlphabarError("cli.unreadable", path=path, reason=reason) from None
