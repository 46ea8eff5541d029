"""The commands ``sample``, ``interpolate`` and ``edit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphabar.cli.console import (
    Estimate,
    kept,
    open_path,
    print_json,
    run_to_end,
    say,
    shared_work,
    speaks,
    told_when_stopped,
)
from alphabar.cli.options import (
    ImageArgument,
    JsonOption,
    ModelArgument,
    OpenOption,
    OutOption,
    SamplingOptions,
    SeedOption,
    YesOption,
    parse_comparison,
    with_sampling_options,
)
from alphabar.errors import AlphabarError
from alphabar.files import read_given_file
from alphabar.messages import message
from alphabar.result_folder import check_count

if TYPE_CHECKING:
    from torch import Tensor

    from alphabar.runs.model import Model


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
    yes: YesOption = False,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate samples: a file for each, and in DIR/overview all of them and the reverse process."""
    from alphabar.runs.model import load_model
    from alphabar.sampling.bound import weights_fingerprint
    from alphabar.sampling.comparison import comparison_settings
    from alphabar.sampling.outputs import sampling_metadata
    from alphabar.sampling.sample_folder import SampleFolder, sample_into
    from alphabar.sampling.settings import nfe_per_sample

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
    check_count(total)
    weights = weights_fingerprint(loaded, settings)[:16]
    evaluations = n * sum(nfe_per_sample(loaded, variant) for variant in variants)
    with shared_work():
        loaded, runtime = sampling.runtime(loaded, out / "samples.json", evaluations, *variants)
        about = {**about, "runtime": runtime}
        folder = SampleFolder(out, loaded.codec, {**about, "weights": weights}, total)
        estimate = Estimate(total, evaluations, yes, lambda: kept(folder), folder.kept() / max(total, 1))
        with told_when_stopped(lambda: kept(folder)):
            run_to_end(sample_into(folder, loaded, n, variants), estimate=estimate)
    say(message("cli.samples_written", n=total, out=out, overview=_overview(out)))
    open_path(_overview(out), show and speaks())
    print_json(as_json, {"out": str(out), "n": total, **about})


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
    from alphabar.runs.model import load_model
    from alphabar.sampling.bound import weights_fingerprint
    from alphabar.sampling.interpolate import interpolate_into
    from alphabar.sampling.outputs import sampling_metadata
    from alphabar.sampling.sample_folder import SampleFolder
    from alphabar.sampling.settings import deterministic, nfe_per_sample

    check_count(rows * columns)
    loaded = load_model(model)
    settings = sampling.settings(loaded, seed)
    if not sampling.values.get("sampler"):
        settings = deterministic(loaded, settings)
    about = sampling_metadata(loaded, settings, str(model), rows=rows, columns=columns)
    evaluations = rows * columns * nfe_per_sample(loaded, settings)
    loaded, about["runtime"] = sampling.runtime(loaded, out / "samples.json", evaluations, settings)
    decisive = {**about, "weights": weights_fingerprint(loaded, settings)[:16]}
    folder = SampleFolder(out, loaded.codec, decisive, rows * columns)
    with told_when_stopped(lambda: kept(folder)):
        run_to_end(interpolate_into(folder, loaded, settings, rows=rows, columns=columns))
    say(message("cli.samples_written", n=folder.n, out=out, overview=_overview(out)))
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
    from alphabar.data.items import content_hash
    from alphabar.runs.model import load_model
    from alphabar.sampling.bound import weights_fingerprint
    from alphabar.sampling.edit import edit_into
    from alphabar.sampling.outputs import sampling_metadata
    from alphabar.sampling.sample_folder import SampleFolder
    from alphabar.sampling.settings import deterministic, nfe_per_sample

    check_count(n)
    loaded = load_model(model)
    item = _read_item(loaded, image)
    # Inversion finds the noise without guidance, so sampling from it is without the recipe's guidance too.
    settings = sampling.settings(loaded, seed, without_guidance=invert)
    if not sampling.values.get("sampler"):
        settings = deterministic(loaded, settings)
    about = sampling_metadata(
        loaded, settings, str(model), image=str(image), strength=strength, invert=invert
    )
    evaluations = n * nfe_per_sample(loaded, settings)
    loaded, about["runtime"] = sampling.runtime(loaded, out / "samples.json", evaluations, settings)
    weights, content = weights_fingerprint(loaded, settings)[:16], content_hash(item.numpy().tobytes())
    decisive = {**about, "weights": weights, "content": content}
    folder = SampleFolder(out, loaded.codec, decisive, n)
    with told_when_stopped(lambda: kept(folder)):
        run_to_end(edit_into(folder, loaded, item, settings, strength=strength, invert=invert))
    say(message("cli.samples_written", n=n, out=out, overview=_overview(out)))
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
            model.codec.read(read_given_file(path), "crop" if fit == "box" else fit).item.copy()
        )
    except (OSError, Unreadable) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise AlphabarError("cli.unreadable", path=path, reason=reason) from None
