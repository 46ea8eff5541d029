"""TODO-DOC from cli"""

from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, print_json, say
from alphabar.cli.options import (
    AskOption,
    AutoguidanceOption,
    ClassifierOption,
    ClassifierScaleOption,
    ClassOption,
    EmaOption,
    GridOption,
    GuidanceOption,
    ImageArgument,
    IntervalOption,
    JsonOption,
    ModelArgument,
    NegativeOption,
    PagOption,
    PromptOption,
    SagOption,
    SamplerOption,
    SeedOption,
    StartOption,
    StepsOption,
    UnconditionalOption,
)
from alphabar.cli.parse import all_or_nothing, parse_compared, parse_conditions, parse_interval
from alphabar.errors import AlphabarError


@app.command()
def sample(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the pictures.")],
    n: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many pictures, 64; of each value compared, 8.")
    ] = None,
    classes: ClassOption = None,
    conditions: AskOption = None,
    prompts: PromptOption = None,
    unconditional: UnconditionalOption = False,
    negative: NegativeOption = None,
    guidance: GuidanceOption = 1.0,
    guidance_interval: IntervalOption = None,
    sag: SagOption = 0.0,
    pag: PagOption = None,
    autoguidance: AutoguidanceOption = 1.0,
    classifier: ClassifierOption = None,
    classifier_scale: ClassifierScaleOption = 1.0,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=A,B,…",
            help="Draw from the same noise with guidance, sag, pag, autoguidance, class, an attribute or"
            " caption=A|B|… at each value: in the overview a row a noise, a column a value.",
        ),
    ] = None,
    sampler: SamplerOption = None,
    timesteps: GridOption = None,
    steps: StepsOption = None,
    initial_noise: StartOption = None,
    ema: EmaOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures: PNG files, and in DIR/overview a grid of them and a strip of the reverse process."""

    from alphabar.sampling.comparison import comparison_settings, per_sample_settings, side_by_side
    from alphabar.sampling.outputs import ReverseProcessRecorder, check_free, write_pictures
    from alphabar.sampling.sample import sample as library_sample
    from alphabar.sampling.settings import sampling_settings, uses_training_conditions

    asked = all_or_nothing(parse_conditions(classes or [], conditions or [], prompts or []), unconditional)
    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    key, values = parse_compared(compare) if compare else ("", [])
    from alphabar.images import image_grid as sheet
    from alphabar.images import image_strip
    from alphabar.runs.model import load_model

    loaded = load_model(model, ema=ema)
    settings = sampling_settings(
        loaded,
        seed=seed,
        sampler=sampler,
        timesteps=timesteps,
        steps=steps,
        initial_noise=initial_noise,
        conditions=asked,
        guidance=guidance,
        guidance_interval=interval,
        sag=sag,
        pag=pag,
        autoguidance=autoguidance,
        negative=negative,
        classifier=None if classifier is None else str(classifier),
        classifier_scale=classifier_scale,
    )
    check_free(out)
    about = {"model": str(model), "images": loaded.images, **settings.to_dict()}
    if uses_training_conditions(loaded, settings):
        about["conditions"] = "as the data"
    if ema is not None:
        about["ema"] = ema
    if compare:
        variants = comparison_settings(loaded, settings, key, values)
        rows = 8 if n is None else n
        ready = [library_sample(loaded, rows, variant) for variant in variants]
        drawn = [last_with_bar(s, f"drawing {key}={v}").result for s, v in zip(ready, values, strict=True)]
        about = {**about, "compare": {key: values}}
        pictures, each = side_by_side(drawn, variants)
        write_pictures(pictures, out, about, {"grid": sheet(pictures, len(values))}, each)
        say(f"{rows * len(values)} pictures in {out}, side by side in {out / 'overview'}")
        print_json(as_json, {"out": str(out), "n": rows * len(values), **about})
        return
    n = 64 if n is None else n
    strip = ReverseProcessRecorder(loaded.denoiser.schedule, settings.steps)
    record = last_with_bar(map(strip.watch, library_sample(loaded, n, settings)), "drawing")
    overview = {"grid": sheet(record.result[:100]), "process": image_strip(strip.columns)}
    write_pictures(record.result, out, about, overview, per_sample_settings(settings, n))
    say(f"{n} pictures in {out}, an overview in {out / 'overview'}")
    print_json(as_json, {"out": str(out), "n": n, **about})


@app.command()
def interpolate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the pictures.")],
    rows: Annotated[int, typer.Option(metavar="N", help="How many ways.")] = 4,
    columns: Annotated[int, typer.Option(metavar="N", help="Pictures on each.")] = 8,
    classes: ClassOption = None,
    conditions: AskOption = None,
    prompts: PromptOption = None,
    guidance: GuidanceOption = 1.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Go from one picture to another: between noises, or by the same noise between two things asked for."""

    from alphabar.sampling.edit import deterministic
    from alphabar.sampling.interpolate import interpolate as library_interpolate
    from alphabar.sampling.outputs import check_free, write_pictures
    from alphabar.sampling.settings import sampling_settings

    asked = parse_conditions(classes or [], conditions or [], prompts or [])
    from alphabar.images import image_grid as sheet
    from alphabar.runs.model import load_model

    loaded = load_model(model)
    settings = sampling_settings(
        loaded, seed=seed, sampler=sampler, steps=steps, conditions=asked, guidance=guidance
    )
    if sampler is None:
        settings = deterministic(loaded, settings)
    check_free(out)
    records = library_interpolate(loaded, settings, rows=rows, columns=columns)
    pictures = last_with_bar(records, "drawing").result
    about = {
        "model": str(model),
        "images": loaded.images,
        "rows": rows,
        "columns": columns,
        **settings.to_dict(),
    }
    write_pictures(pictures, out, about, {"grid": sheet(pictures, columns)})
    say(f"{rows} ways of {columns} pictures in {out}, side by side in {out / 'overview'}")
    print_json(as_json, {"out": str(out), **about})


@app.command()
def edit(
    model: ModelArgument,
    image: ImageArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the pictures.")],
    strength: Annotated[
        float, typer.Option(metavar="S", help="How much is drawn anew: 0 nothing, 1 all of it.")
    ] = 0.6,
    invert: Annotated[
        bool, typer.Option("--invert", help="Go to the noise that leads to the picture, and back as asked.")
    ] = False,
    n: Annotated[int, typer.Option("-n", metavar="N", help="How many; one with --invert.")] = 1,
    classes: ClassOption = None,
    conditions: AskOption = None,
    prompts: PromptOption = None,
    negative: NegativeOption = None,
    guidance: GuidanceOption = 1.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw other pictures from a given one, the same from afar, of another class or by other words."""

    from alphabar.sampling.edit import deterministic
    from alphabar.sampling.edit import edit as library_edit
    from alphabar.sampling.outputs import check_free, write_pictures
    from alphabar.sampling.settings import sampling_settings

    asked = parse_conditions(classes or [], conditions or [], prompts or [])
    import torch

    from alphabar.codecs.image import to_signal
    from alphabar.data.decode import decode
    from alphabar.data.items import Unreadable
    from alphabar.images import image_grid as sheet
    from alphabar.runs.model import load_model

    loaded = load_model(model)
    recipe = loaded.recipe.data
    try:
        # The box of a fit is the data's; a single picture has none.
        fit = "squash" if recipe.fit == "squash" else "crop"
        picture = torch.from_numpy(decode(image.read_bytes(), loaded.codec.spatial, fit).pixels.copy())
    except (OSError, Unreadable) as error:
        raise AlphabarError(f"{image}: {getattr(error, 'strerror', None) or error}") from None
    settings = sampling_settings(
        loaded,
        seed=seed,
        sampler=sampler,
        steps=steps,
        conditions=asked,
        guidance=guidance,
        negative=negative,
        pag=0.0 if invert else None,  # the way up knows of no guidance
    )
    if sampler is None:
        settings = deterministic(loaded, settings)
    check_free(out)
    records = library_edit(
        loaded, to_signal(picture[None])[0], settings, strength=strength, invert=invert, n=n
    )
    pictures = last_with_bar(records, "drawing").result
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "strength": strength,
        "invert": invert,
        **settings.to_dict(),
    }
    shown = torch.cat([picture[None], pictures])
    write_pictures(pictures, out, about, {"grid": sheet(shown, len(shown))})
    say(f"{n} picture{'s' * (n > 1)} in {out}, beside the given one in {out / 'overview'}")
    print_json(as_json, {"out": str(out), "n": n, **about})
