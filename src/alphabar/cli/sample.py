"""The commands ``sample``, ``interpolate`` and ``edit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphabar.cli.console import print_json, run_to_end, say, told_when_stopped
from alphabar.cli.options import (
    ImageArgument,
    JsonOption,
    ModelArgument,
    OutOption,
    SamplingOptions,
    SeedOption,
    parse_comparison,
    with_sampling_options,
)
from alphabar.errors import AlphabarError

if TYPE_CHECKING:
    from torch import Tensor

    from alphabar.runs.model import Model
    from alphabar.sampling.sample_folder import SampleFolder


@with_sampling_options()
def sample(
    model: ModelArgument,
    out: OutOption,
    sampling: SamplingOptions,
    n: Annotated[
        int | None,
        typer.Option(
            "-n", metavar="N", help="Number of samples.", show_default="64, or 8 of each with --compare"
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=A,B,…",
            help="Use the same noise with each value of a guidance's option, class, an attribute or"
            " caption=A|B|…; the overview has a row for each noise and a column for each value.",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="LENGTH", help="Another EMA length, as a share of the training, e.g. 0.1."),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Generate samples: a file for each, and in DIR/overview all of them and the reverse process.

    Files are written as they come; after a stop the same command goes on.

    For example: alphabar sample cars64 -n 16 --attribute body=SUV --guidance 2 --out suvs
    """
    from alphabar.runs.model import load_model
    from alphabar.sampling.comparison import comparison_settings
    from alphabar.sampling.outputs import sampling_metadata
    from alphabar.sampling.sample_folder import SampleFolder, sample_into

    comparison = parse_comparison(compare) if compare else None
    loaded = load_model(model, ema=ema)
    settings = sampling.settings(loaded, seed)
    about = sampling_metadata(loaded, settings, str(model), **({} if ema is None else {"ema": ema}))
    variants = [settings]
    if comparison:
        variants = comparison_settings(loaded, settings, *comparison)
        about = {**about, "compare": {comparison[0]: comparison[1]}}
    if n is None:
        n = 8 if comparison else 64
    total = n * len(variants)
    weights = loaded.fingerprint[:16]
    folder = SampleFolder(out, loaded.codec, {**about, "weights": weights}, total)
    with told_when_stopped(lambda: _kept(folder)):
        run_to_end(sample_into(folder, loaded, n, variants))
    side = "side by side" if comparison else "an overview"
    say(f"{total} samples are in {out}, {side} in {out / 'overview'}")
    print_json(as_json, {"out": str(out), "n": total, **about})


def _kept(folder: "SampleFolder") -> str:
    """What is there of a sampling that was stopped."""
    kept = folder.kept()
    if not kept:
        return f"no sample is finished yet; give the same command again to generate them in {folder.path}"
    return f"{kept} of {folder.n} samples are in {folder.path}; give the same command again to go on"


@with_sampling_options("unconditional", "timesteps", "initial_noise")
def interpolate(
    model: ModelArgument,
    out: OutOption,
    sampling: SamplingOptions,
    rows: Annotated[int, typer.Option(metavar="N", help="Number of interpolations.")] = 4,
    columns: Annotated[int, typer.Option(metavar="N", help="Samples on each.")] = 8,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Interpolate between samples, or with the same noise between two conditions.

    For example: alphabar interpolate cars64 --attribute body=SUV --attribute body=coupe --out between
    """
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
    say(f"{rows} interpolations of {columns} samples are in {out}, side by side in {out / 'overview'}")
    print_json(as_json, {"out": str(out), **about})


@with_sampling_options("unconditional", "timesteps", "initial_noise")
def edit(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    sampling: SamplingOptions,
    strength: Annotated[
        float,
        typer.Option(metavar="S", help="How much is generated anew, from 0 (nothing) to 1 (everything)."),
    ] = 0.6,
    invert: Annotated[
        bool, typer.Option("--invert", help="Find the noise that leads to the picture and generate from it.")
    ] = False,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Number of variations; 1 with --invert.")] = 1,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Generate variations of a picture that resemble it from afar, with other conditions if wanted.

    For example: alphabar edit cars64 car.png --strength 0.5 -n 4 --out variations
    """
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
    say(f"{n} variation{'s' * (n > 1)} in {out}, beside the given picture in {out / 'overview'}")
    print_json(as_json, {"out": str(out), "n": n, **about})


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
