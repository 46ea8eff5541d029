"""The commands: thin over the Python API. Everything heavy is imported where it is used."""

import json
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphabar.errors import AlphabarError, UsageError

if TYPE_CHECKING:
    from alphabar.data.cache import Dataset
    from alphabar.training import trainer as trainer_room
    from alphabar.training.plan import Plan
    from alphabar.training.recipe import Recipe

app = typer.Typer(
    help="Train an image diffusion model on your own pictures, judge it honestly, use it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="A folder of pictures, 'toycars', or hf://datasets/owner/name.")
]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder, or a shipped model: cars64.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of the noise.")]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="ancestral, ddim, euler, heun, dpmpp_2m or unipc; default: the recipe's."
    ),
]
GridOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Noise levels to visit: uniform, karras, log_snr or linear_beta; with settings as JSON,"
        ' {"name":"log_snr","sigma_min":0.02}.',
    ),
]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Sampler steps; default: the recipe's.")]
ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="NAME", help="Ask for a class; words of its name do. Repeat for several."
    ),
]
AskOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Ask for an attribute, e.g. color=red. May be repeated."),
]
UnconditionalOption = Annotated[
    bool,
    typer.Option(
        "--unconditional",
        help="Ask for nothing; by default every kind is drawn as often as the data has it.",
    ),
]
PromptOption = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="Ask for it in words. Repeat for several."),
]
NegativeOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What guidance leads away from, a sentence or a class."),
]
GuidanceOption = Annotated[
    float, typer.Option(metavar="W", help="Classifier-free guidance towards what is asked; 1 is none.")
]
IntervalOption = Annotated[
    str | None,
    typer.Option(metavar="LO,HI", help="Noise levels sigma/alpha within which guidance acts; default: all."),
]
SagOption = Annotated[float, typer.Option(metavar="S", help="Self-attention guidance; 0 is none.")]
PagOption = Annotated[
    float | None,
    typer.Option(metavar="S", help="Perturbed-attention guidance; 0 is none.", show_default="the recipe's"),
]
SolverPagOption = Annotated[
    float | None,
    typer.Option(
        metavar="S", help="Perturbed-attention guidance; 0 is none.", show_default="by the task and the model"
    ),
]
AutoguidanceOption = Annotated[
    float, typer.Option(metavar="W", help="Guidance away from the run's early snapshot; 1 is none.")
]
ClassifierOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="Guidance towards what is asked by a classifier (train --recipe classifier)."
    ),
]
ClassifierScaleOption = Annotated[
    float, typer.Option(metavar="S", help="How strongly the classifier guides; 0 is none.")
]
StartOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="noise, or gaussian: noise that carries the data's mean and covariance."
    ),
]

EmaOption = Annotated[
    float | None,
    typer.Option(
        "--ema",
        metavar="LENGTH",
        help="Another length of the average of the weights, as a share of the training, e.g. 0.1.",
    ),
]

ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")]
AnswersOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="A new folder for the answers and an overview.")
]
CountOption = Annotated[
    int, typer.Option("-n", metavar="N", help="How many answers; from two on with a map of their spread.")
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="ddnm, ddrm, diffpir, pigdm, mmps, perturb_and_map, dps or direct; default: by the task.",
    ),
]
SolverStepsOption = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Solver steps; default: 25.")
]
NoiseOption = Annotated[
    str,
    typer.Option(metavar="STD", help="Noise in the picture, 2 being black to white; or auto to estimate it."),
]
DEGRADATION_HELP = (
    "What was done, for example down:4, blur:1.5+noise:0.05, motion:9,45, grey, jpeg:10, noise:auto, "
    "random:0.7 or mask:FILE+noise:0.1."
)


@app.command()
def inspect(data: DataArgument, as_json: JsonOption = False) -> None:
    """Say what is in a data set: counts, sizes, classes, bad files, duplicates, a size that suits it."""
    from alphabar.data.inspect import inspect

    report = _last(inspect(data), "inspecting").report
    print("\n".join(report.lines()))
    _finish(as_json, report.to_dict())


@app.command()
def train(
    data: DataArgument,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The run folder, runs/DATA by default; where it holds a run, go on with it."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="classic, ddpm, edm, lean, classifier, gan, vae, or the path of a recipe.toml; with --budget"
            " alone, see alphabar plan.",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time to train in all, for example 90m or 2h.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="N", help="Images to see in all, for example 500k or 2M.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe, e.g. data.size=32."),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="What the model may be asked for: class, attributes, text or clusters."
        ),
    ] = None,
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Instead of a recipe: go on from a trained model, cars64 for example, on DATA; with larger"
            " --set network.widths in a wider network, for recipe edm. In batches of 32 at most.",
        ),
    ] = None,
    shorten: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Instead of a recipe: tune a copy of a model trained on DATA to draw in --steps evaluations"
            " of the network; some variety is lost.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Of a model made by --shorten.", show_default="4")
    ] = None,
    checkpoint_every: Annotated[str, typer.Option(metavar="TIME", help="Time between checkpoints.")] = "5m",
    as_json: JsonOption = False,
) -> None:
    """Train a model. The same command again goes on where it was stopped or killed."""
    seconds = None if budget is None else parse_duration(budget)
    wanted = None if images is None else parse_count(images)
    every = parse_duration(checkpoint_every)

    from alphabar.data.cache import prepare
    from alphabar.data.sources import open_source
    from alphabar.training import trainer
    from alphabar.training.recipe import read_recipe, with_settings
    from alphabar.training.recipes import continued, named_recipe, shortened
    from alphabar.training.run import Run, load_model
    from alphabar.training.runtime import Runtime, processes

    source = open_source(data)
    name = re.sub(r"[^\w.-]+", "-", Path(data).resolve().name) + "-short" * bool(shorten)
    run = run or Path("runs") / name
    if sum(map(bool, (recipe, origin, shorten))) > 1:
        raise UsageError("give one of --recipe, --from and --shorten: the last two take their model's recipe")
    if steps is not None and not shorten:
        raise UsageError("--steps is for --shorten: how many a model takes is chosen when it draws")
    start = origin or shorten
    model = load_model(start) if start else None
    chosen, planning = None, False
    if model is not None and shorten:
        chosen = shortened(model.recipe, 4 if steps is None else steps)
    elif model is not None:
        chosen = continued(model.recipe, model.path.name)
    elif recipe is not None:
        chosen = read_recipe(Path(recipe)) if recipe.endswith(".toml") else named_recipe(recipe)
    elif Run(run).exists:
        chosen = Run(run).recipe
    if chosen is None:
        if seconds is None:
            raise UsageError(
                f"there is no run at {run} yet: say which recipe, for example --recipe classic,"
                " or how long to train, for example --budget 2h"
            )
        chosen, planning = named_recipe("lean"), True
    changes = [*(settings or []), *([f"condition.on={condition}"] if condition else [])]
    chosen = with_settings(chosen, changes)
    if Run(run).exists:
        trainer.begin(run, chosen)
    stop = threading.Event()
    with processes(), _stopping(stop):
        main = Runtime().is_main
        pictures = prepare(source, chosen.data.size, chosen.data.fit)
        dataset = _last(pictures, "reading pictures", quiet=not main).dataset
        asked = trainer.conditions_of(dataset, chosen)  # fails before anything is written
        if shorten and model and (asked and asked[0]) != model.conditioning:
            raise UsageError(
                f"{shorten} was trained on other labels than those of {data}: give the same pictures"
            )
        if planning:
            planned = _plan(dataset, chosen, seconds or 0.0, quiet=not main)
            chosen = with_settings(planned.recipe, changes)
        opened = trainer.begin(run, chosen, start=model) if main else Run(run)
        if main:
            opened.remember_data(data)
            _mention_skipped(dataset)
        Runtime().barrier()
        records = trainer.train(
            dataset, opened, images=wanted, budget=seconds, checkpoint_every=every, stop=stop
        )
        finished = _show_training(records, quiet=not main)
    if main:
        say(f"{finished.reason}: {finished.images:,} images in {format_duration(finished.seconds)}, in {run}")
        _finish(as_json, {"run": str(run), **asdict(finished)})


@app.command()
def plan(
    data: DataArgument,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time to train, for example 90m or 2h.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe lean, e.g. data.size=32."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine, about a minute, and say what to train on it in a budget, and how far it goes."""
    seconds = parse_duration(budget)

    from alphabar.data.cache import prepare
    from alphabar.data.sources import open_source
    from alphabar.training.recipe import with_settings
    from alphabar.training.recipes import named_recipe

    recipe = with_settings(named_recipe("lean"), settings or [])
    pictures = prepare(open_source(data), recipe.data.size, recipe.data.fit)
    planned = _plan(_last(pictures, "reading pictures").dataset, recipe, seconds)
    more = "".join(f" --set {setting}" for setting in settings or [])
    say(f"to train it: alphabar train {data} --budget {budget}{more}")
    _finish(as_json, planned.to_dict())


@app.command()
def sample(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the pictures.")],
    n: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many pictures, 64; of each value compared, 8.")
    ] = None,
    classes: ClassOption = None,
    ask: AskOption = None,
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
    grid: GridOption = None,
    steps: StepsOption = None,
    start: StartOption = None,
    ema: EmaOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures: PNG files, and in DIR/overview a grid of them and a strip of the reverse process."""
    if grid and "=" in grid:  # guidance=1,2,3: a grid of pictures
        grid, compare = None, grid
    asked = all_or_nothing(parse_asked(classes or [], ask or [], prompts or []), unconditional)
    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    key, values = parse_compared(compare) if compare else ("", [])
    from alphabar import sampling
    from alphabar.reporting.figures import grid as sheet
    from alphabar.reporting.figures import reverse_strip
    from alphabar.training.run import load_model

    loaded = load_model(model, ema=ema)
    how = sampling.settings(
        loaded,
        seed=seed,
        sampler=sampler,
        grid=grid,
        steps=steps,
        start=start,
        ask=asked,
        guidance=guidance,
        guidance_interval=interval,
        sag=sag,
        pag=pag,
        autoguidance=autoguidance,
        negative=negative,
        classifier=None if classifier is None else str(classifier),
        classifier_scale=classifier_scale,
    )
    sampling.check_free(out)
    about = {"model": str(model), "images": loaded.images, **how.to_dict()}
    if sampling.asks_as_data(loaded, how):
        about["ask"] = "as the data"
    if ema is not None:
        about["ema"] = ema
    if compare:
        variants = sampling.compared(loaded, how, key, values)
        rows = 8 if n is None else n
        ready = [sampling.sample(loaded, rows, variant) for variant in variants]
        drawn = [_last(s, f"drawing {key}={v}").pictures for s, v in zip(ready, values, strict=True)]
        about = {**about, "compare": {key: values}}
        pictures, each = sampling.side_by_side(drawn, variants)
        sampling.write_pictures(pictures, out, about, {"grid": sheet(pictures, len(values))}, each)
        say(f"{rows * len(values)} pictures in {out}, side by side in {out / 'overview'}")
        _finish(as_json, {"out": str(out), "n": rows * len(values), **about})
        return
    n = 64 if n is None else n
    strip = sampling.Strip(loaded.denoiser.schedule, how.steps)
    record = _last(map(strip.watch, sampling.sample(loaded, n, how)), "drawing")
    overview = {"grid": sheet(record.pictures[:100]), "process": reverse_strip(strip.columns)}
    sampling.write_pictures(record.pictures, out, about, overview, sampling.one_by_one(how, n))
    say(f"{n} pictures in {out}, an overview in {out / 'overview'}")
    _finish(as_json, {"out": str(out), "n": n, **about})


@app.command()
def interpolate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the pictures.")],
    rows: Annotated[int, typer.Option(metavar="N", help="How many ways.")] = 4,
    columns: Annotated[int, typer.Option(metavar="N", help="Pictures on each.")] = 8,
    classes: ClassOption = None,
    ask: AskOption = None,
    prompts: PromptOption = None,
    guidance: GuidanceOption = 1.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Go from one picture to another: between noises, or by the same noise between two things asked for."""
    asked = parse_asked(classes or [], ask or [], prompts or [])
    from alphabar import editing, sampling
    from alphabar.reporting.figures import grid as sheet
    from alphabar.training.run import load_model

    loaded = load_model(model)
    how = sampling.settings(loaded, seed=seed, sampler=sampler, steps=steps, ask=asked, guidance=guidance)
    if sampler is None:
        how = editing.deterministic(loaded, how)
    sampling.check_free(out)
    records = editing.interpolate(loaded, how, rows=rows, columns=columns)
    pictures = _last(records, "drawing").pictures
    about = {"model": str(model), "images": loaded.images, "rows": rows, "columns": columns, **how.to_dict()}
    sampling.write_pictures(pictures, out, about, {"grid": sheet(pictures, columns)})
    say(f"{rows} ways of {columns} pictures in {out}, side by side in {out / 'overview'}")
    _finish(as_json, {"out": str(out), **about})


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
    ask: AskOption = None,
    prompts: PromptOption = None,
    negative: NegativeOption = None,
    guidance: GuidanceOption = 1.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw other pictures from a given one, the same from afar, of another class or by other words."""
    asked = parse_asked(classes or [], ask or [], prompts or [])
    import torch

    from alphabar import editing, sampling
    from alphabar.data.decode import decode
    from alphabar.data.pixels import to_signal
    from alphabar.data.source import Unreadable
    from alphabar.reporting.figures import grid as sheet
    from alphabar.training.run import load_model

    loaded = load_model(model)
    recipe = loaded.recipe.data
    try:
        # The box of a fit is the data's; a single picture has none.
        fit = "squash" if recipe.fit == "squash" else "crop"
        picture = torch.from_numpy(decode(image.read_bytes(), recipe.size, fit).pixels.copy())
    except (OSError, Unreadable) as error:
        raise AlphabarError(f"{image}: {getattr(error, 'strerror', None) or error}") from None
    how = sampling.settings(
        loaded,
        seed=seed,
        sampler=sampler,
        steps=steps,
        ask=asked,
        guidance=guidance,
        negative=negative,
        pag=0.0 if invert else None,  # the way up knows of no guidance
    )
    if sampler is None:
        how = editing.deterministic(loaded, how)
    sampling.check_free(out)
    records = editing.edit(loaded, to_signal(picture[None])[0], how, strength=strength, invert=invert, n=n)
    pictures = _last(records, "drawing").pictures
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "strength": strength,
        "invert": invert,
        **how.to_dict(),
    }
    shown = torch.cat([picture[None], pictures])
    sampling.write_pictures(pictures, out, about, {"grid": sheet(shown, len(shown))})
    say(f"{n} picture{'s' * (n > 1)} in {out}, beside the given one in {out / 'overview'}")
    _finish(as_json, {"out": str(out), "n": n, **about})


@app.command()
def inpaint(
    model: ModelArgument,
    image: ImageArgument,
    out: AnswersOption,
    mask: Annotated[
        str,
        typer.Option(
            metavar="MASK",
            help="A mask picture (white is filled), box:x0,y0,x1,y1, random:0.7 or strokes:0.2.",
        ),
    ],
    n: CountOption = 4,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: SolverStepsOption = None,
    pag: SolverPagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Fill what is missing in a picture; without noise, known pixels come back untouched."""
    drawn = mask.partition(":")[0] in ("box", "random", "strokes")
    what = f"{mask if drawn else f'mask:{mask}'}+noise:{noise}"
    _restore(model, image, what, out, n, solver, steps, pag, seed, as_json)


@app.command()
def upscale(
    model: ModelArgument,
    image: ImageArgument,
    out: AnswersOption,
    factor: Annotated[int, typer.Option(metavar="N", help="How many times wider and higher.")] = 4,
    n: CountOption = 1,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: SolverStepsOption = None,
    pag: SolverPagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Enlarge a picture that was made smaller bicubically."""
    _restore(model, image, f"down:{factor}+noise:{noise}", out, n, solver, steps, pag, seed, as_json)


@app.command()
def restore(
    model: ModelArgument,
    image: ImageArgument,
    out: AnswersOption,
    degradation: Annotated[str, typer.Option(metavar="WHAT", help=DEGRADATION_HELP)],
    n: CountOption = 1,
    solver: SolverOption = None,
    steps: SolverStepsOption = None,
    pag: SolverPagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Undo what was done to a picture: blur, noise, JPEG, lost colours, missing pixels, or several."""
    _restore(model, image, degradation, out, n, solver, steps, pag, seed, as_json)


@app.command()
def degrade(
    image: Annotated[Path, typer.Argument(metavar="IMAGE|FOLDER", help="A picture, or a folder of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the spoilt pictures, PNG.")],
    degradation: Annotated[str, typer.Option(metavar="WHAT", help=DEGRADATION_HELP)],
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Spoil pictures in a known way, to try restoring on."""
    from alphabar import restoring, sampling

    what = restoring.parse_degradation(degradation)
    sampling.check_free(out)
    files, names = restoring.picture_files(image)
    record = _last(restoring.degrade_all(files, names, what, out, seed), "spoiling")
    say(f"{record.done} pictures in {out}")
    _finish(as_json, {"out": str(out), "n": record.done, "degradation": degradation})


def _restore(
    model: Path,
    image: Path,
    degradation: str,
    out: Path,
    n: int,
    solver: str | None,
    steps: int | None,
    pag: float | None,
    seed: int,
    as_json: bool,
) -> None:
    from alphabar import restoring, sampling
    from alphabar.reporting.figures import grid as sheet
    from alphabar.training.run import load_model

    what = restoring.parse_degradation(degradation)
    sampling.check_free(out)
    task = restoring.read_task(image, what)
    loaded = load_model(model)
    how = restoring.settings(
        loaded, task.operator, task.sigma_y, seed=seed, solver=solver, steps=steps, pag=pag
    )
    records = restoring.restore(loaded, task.y, task.operator, task.sigma_y, n=n, how=how)
    answers = _last(records, "restoring").x[:, 0]
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "degradation": degradation,
        "sigma_y": task.sigma_y,
        **how.to_dict(),
    }
    shown = restoring.panels(task, answers)
    overview = {"overview": sheet(shown, len(shown))}
    if n > 1:
        overview["spread"] = sheet(shown[-1:])
    restoring.write_answers(task, answers, out, about, overview)
    say(f"{n} answer{'s' * (n > 1)} in {out}, with overview.png")
    _finish(as_json, {"out": str(out), "n": n, **about})


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="MODEL|FOLDER", help="A run or model folder, or a folder of samples.")
    ],
    against: Annotated[str, typer.Option(metavar="DATA", help="The real pictures, as for training.")],
    n: Annotated[int, typer.Option("-n", metavar="N", help="How many samples.")] = 2000,
    features: Annotated[
        str, typer.Option(metavar="NAME", help="lite0 (offline), inception (FID, Inception Score) or dinov2.")
    ] = "lite0",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the feature network, where it takes a file."),
    ] = None,
    classes: ClassOption = None,
    ask: AskOption = None,
    prompts: PromptOption = None,
    unconditional: UnconditionalOption = False,
    teller: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="Who tells the kinds of pictures: a run of --recipe classifier on DATA."
        ),
    ] = None,
    negative: NegativeOption = None,
    guidance: GuidanceOption = 1.0,
    guidance_interval: IntervalOption = None,
    sag: SagOption = 0.0,
    pag: PagOption = None,
    autoguidance: AutoguidanceOption = 1.0,
    classifier: ClassifierOption = None,
    classifier_scale: ClassifierScaleOption = 1.0,
    sampler: SamplerOption = None,
    grid: GridOption = None,
    steps: StepsOption = None,
    start: StartOption = None,
    ema: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Other lengths of the average of the weights, as shares of the training, e.g. 0.03,0.1,0.2;"
            " of several, a table.",
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge samples: how far from real pictures, each number with its protocol; copies; who is left out."""
    asked = all_or_nothing(parse_asked(classes or [], ask or [], prompts or []), unconditional)
    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    from alphabar import evaluation, sampling
    from alphabar.reporting.figures import nearest_panel
    from alphabar.training.run import Run, holds_model, load_model

    drawing = (asked is not None, guidance != 1, guidance_interval, sag, pag is not None, autoguidance != 1)
    if not holds_model(what) and any((*drawing, negative, classifier, sampler, grid, steps, start, ema)):
        raise UsageError(
            f"{what} is a folder of pictures: leave out how a model is to draw or what it is asked for"
        )
    results = []
    for length in parse_lengths(ema) if ema else [None]:
        how = None
        judged: Any = what
        if holds_model(what):
            judged = load_model(what, ema=length)
            how = sampling.settings(
                judged,
                seed=seed,
                sampler=sampler,
                grid=grid,
                steps=steps,
                start=start,
                ask=asked,
                guidance=guidance,
                guidance_interval=interval,
                sag=sag,
                pag=pag,
                autoguidance=autoguidance,
                negative=negative,
                classifier=None if classifier is None else str(classifier),
                classifier_scale=classifier_scale,
            )
        judging = evaluation.evaluate(
            judged,
            against,
            n=n,
            features=features,
            how=how,
            weights=weights,
            teller=load_model(teller) if teller else None,
        )
        results.append((length, _last(judging, None).result))
    if len(results) > 1:
        _print_lengths(results)
        _finish(as_json, {"ema": [{"length": length, **r.to_dict()} for length, r in results]})
        return
    ((length, result),) = results
    _print_evaluation(result)
    if how and length is None and Run(what).exists:
        evaluation.add_to_run(Run(what), result)
        if result.twins:
            nearest_panel(result.twins.samples, result.twins.originals[:, None]).save(what / "copies.png")
    _finish(as_json, result.to_dict())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="The training pictures, where they have moved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write RUN/report.html: one self-contained page with everything that is known of the run."""
    from alphabar.reporting.exhibits import exhibit
    from alphabar.reporting.report import write_report
    from alphabar.training.run import Run

    _last(exhibit(Run(run), data), None)
    path = write_report(run)
    say(f"the report is at {path}")
    _finish(as_json, {"run": str(run), "report": str(path)})


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path("comparison.html"),
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: cost, quality, variety, copies, samples; a table here and one HTML page."""
    from alphabar.reporting import compare as room

    result = _last(room.compare(runs), None).result
    for (title, (head, *body)), rankings in zip(
        room.rows(result), [(), *(t.ranking for t in result.tables)], strict=True
    ):
        print(title)
        _print_table(head, body)
        print("\n".join((*rankings, "")))
    for note in result.notes:
        print(f"note: {note}")
    room.write_page(result, out)
    say(f"the page is at {out}")
    _finish(as_json, {"page": str(out), **result.to_dict()})


@app.command()
def studio(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL|RUNS", help="A model, a run, or a folder of them.")
    ] = Path("runs"),
    host: Annotated[
        str, typer.Option(metavar="NAME", help="Where to listen; beyond this machine only with --password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Default: the first free one from 7860.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="ALPHABAR_PASSWORD", help="What the page asks for first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open the studio: a local web page to draw, mend, compare, train and watch. Needs the extra [studio]."""
    from alphabar.studio.app import serve

    def opened(address: str) -> None:
        say(f"the studio is at {address}")
        _finish(as_json, {"address": address})
        sys.stdout.flush()

    serve(folder, host=host, port=port, password=password, opened=opened)


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
    train("toycars", run=run, budget=budget, settings=["data.size=32", "watch.share=0.1"])
    say(f"2/4 drawing 64 pictures into {pictures}")
    shutil.rmtree(pictures, ignore_errors=True)
    sample(run, out=pictures, n=64)
    say("3/4 judging 300 samples")
    evaluate(run, against="toycars", n=300)
    say("4/4 writing the report")
    report(run)
    _finish(as_json, {"run": str(run), "samples": str(pictures), "report": str(run / "report.html")})


def say(text: str) -> None:
    """A line for the person, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def parse_duration(text: str) -> float:
    """Seconds in '45s', '90m', '2h', '1h30m', or a plain number of seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is no time: write for example 45s, 90m, 2h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"a time of {text!r} leaves nothing to do: give more than zero")
    return total


def parse_count(text: str) -> int:
    """A whole number: '500k', '2M', '12_000'."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kM]?)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is no number of images: write for example 50000, 500k or 2M")
    value = round(float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]])
    if value <= 0:
        raise UsageError(f"{text!r} images leave nothing to do: give more than zero")
    return value


def parse_asked(
    classes: Sequence[str], attributes: Sequence[str], prompts: Sequence[str] = ()
) -> list[dict[str, str]]:
    """What to ask for, every combination of the values given for each field, in their order."""
    values: dict[str, list[str]] = {}
    for field, given in (("class", classes), ("caption", prompts)):
        if given:
            values[field] = list(given)
    for text in attributes:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} should read key=value, for example --set color=red")
        values.setdefault(key.strip(), []).append(value.strip())
    if not values:
        return []
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def all_or_nothing(asked: list[dict[str, str]], unconditional: bool) -> Sequence[dict[str, str]] | None:
    """What `sampling.settings` takes: where nothing is asked None for every kind, or () for nothing."""
    if unconditional and asked:
        raise UsageError("--unconditional asks for nothing: leave out --class, --set and --prompt")
    return asked or (() if unconditional else None)


def parse_interval(text: str) -> tuple[float, float]:
    """Two numbers: '0.2,5'."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is no interval: write for example 0.2,5") from None
    return lo, hi


def parse_lengths(text: str) -> list[float]:
    """Numbers: '0.03,0.1,0.2'."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--ema {text!r} should read as shares of the training, for example 0.03,0.1"
        ) from None


def parse_compared(text: str) -> tuple[str, list[str]]:
    """A key and the values to compare: 'guidance=1,1.5,2'."""
    key, _, values = text.partition("=")
    # Sentences may have commas.
    parts = [part.strip() for part in values.split("|" if "|" in values else ",") if part.strip()]
    if not parts:
        raise UsageError(f"--compare {text!r} should read key=value,value, for example guidance=1,1.5,2,3")
    return key.strip(), parts


def format_duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """SIGTERM or Ctrl-C asks the training to save and leave; a second one leaves at once."""

    def ask(number: int, frame: Any) -> None:
        say("\nfinishing this update and saving; once more to leave at once")
        stop.set()
        for each in previous:
            signal.signal(each, previous[each])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _bar(quiet: bool = False) -> Iterator[Any]:
    """A progress bar on stderr; where that is no terminal, nothing moves and nothing is printed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    ) as progress:
        yield progress


def _last(records: Iterable[Any], stage: str | None, quiet: bool = False) -> Any:
    """Walk a generator of records behind a progress bar and return the last one."""
    record = None
    with _bar(quiet) as progress:
        tasks: dict[str, Any] = {}
        for record in records:
            name = stage or record.stage
            if name not in tasks:
                tasks[name] = progress.add_task(name, detail="")
                if progress.disable and not quiet:
                    say(f"{name} …")
            progress.update(tasks[name], completed=record.done, total=record.total)
    return record


def _show_training(records: "Iterable[trainer_room.Record]", quiet: bool) -> "trainer_room.Finished":
    """Draw a training's records; where stderr is no terminal, a line every half minute."""
    from time import monotonic

    from alphabar.training import trainer

    spoken = monotonic()
    finished = None
    with _bar(quiet) as progress:
        task = progress.add_task("training", total=1.0, detail="starting")

        def tell(text: str) -> None:
            if not quiet:
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        for record in records:
            match record:
                case trainer.Note():
                    tell(record.text)
                case trainer.Progress():
                    detail = f"{record.images:,} images  loss {record.loss:.4f}  {record.rate:.1f} images/s"
                    progress.update(task, completed=record.share, detail=detail)
                    if progress.disable and monotonic() - spoken > 30:
                        spoken = monotonic()
                        tell(f"{record.share:4.0%}  {detail}  left {format_duration(record.eta)}")
                case trainer.Watched():
                    distance = record.distance
                    told = f", {distance['features']} KID {distance['kid']:.4f}" if distance else ""
                    if record.accuracy:
                        tell(f"{record.images:,} images: {_told_right(record.accuracy)}")
                    else:
                        tell(f"{record.images:,} images: samples in {record.grid}{told}")
                case trainer.Finished():
                    finished = record
    assert finished is not None
    return finished


def _told_right(accuracy: dict[str, Any]) -> str:
    """How many held-out labels a classifier tells, at each noise level that it was asked at."""
    at = zip(accuracy["sigma"], accuracy["accuracy"], strict=False)
    shares = [f"{share:.0%} at sigma {sigma:g}" for sigma, share in at if share is not None]
    return "held-out labels told: " + (", ".join(shares) or "none are known")


def _plan(dataset: "Dataset", recipe: "Recipe", seconds: float, quiet: bool = False) -> "Plan":
    """Measure, choose, and show the choice."""
    from datetime import datetime, timedelta

    from alphabar.training.plan import measure, plan

    machine = _last(measure(dataset, recipe), None, quiet).machine
    train_index, _ = dataset.split(recipe.data.held_out)
    planned = plan(machine, recipe, len(train_index), seconds)
    if quiet:
        return planned
    rows = planned.rows()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    finish = datetime.now() + timedelta(seconds=seconds)
    say(f"of {len(train_index):,} pictures, in {format_duration(seconds)}: until {finish:%d %b %H:%M}")
    for note in planned.notes:
        say(f"note: {note}")
    return planned


def _mention_skipped(dataset: "Dataset") -> None:
    if dataset.skipped:
        first = dataset.skipped[0]
        say(
            f"{len(dataset.skipped)} files are left out, the first {first.key}: {first.reason}"
            " (alphabar inspect lists them all)"
        )


def _print_evaluation(result: Any) -> None:
    _print_judgement(result.judgement)
    if result.held_out:
        print("\npictures that the model never saw; they are fewer: only kernel distances compare")
        _print_numbers(result.held_out)
    if result.memorization:
        print(f"\ncopies: {result.memorization.sentence}")
    print()
    for kind in result.shares:
        wrong = [s for s in kind.shares if s.verdict]
        told = "; ".join(
            f"{s.value} {s.verdict}-produced: {s.samples:.1%} [{s.low:.1%}, {s.high:.1%}], data {s.data:.1%}"
            for s in wrong
        )
        print(f"{kind.attribute} (told apart with accuracy {kind.accuracy:.0%}): {told or 'as in the data'}")
    for d in result.drift:
        print(f"{d.look}: {d.difference:+.1f} [{d.low:+.1f}, {d.high:+.1f}] of 255, data {d.data:.1f}")
    for a in result.agreements:
        print(
            f"{a.attribute} as asked: {a.agreed:.0%} [{a.low:.0%}, {a.high:.0%}] of {a.n} samples;"
            f" of real pictures the classifier knows {a.accuracy:.0%}"
        )
        if a.distances:
            rows = [
                (d.value, f"{d.kid:.3f} [{d.low:.3f}, {d.high:.3f}]", str(d.n), str(d.reference_n))
                for d in a.distances
            ]
            _print_table((f"  {a.attribute} asked", "kernel distance from its own", "n", "reference"), rows)
    for note in result.notes:
        print(f"note: {note}")


def _print_lengths(results: Sequence[tuple[float | None, Any]]) -> None:
    shown = ("frechet", "kid", "precision", "recall")
    first = results[0][1].judgement
    names = [m.name for m in first.measures if m.key in shown]
    rows = [
        (
            f"{length:g}",
            *(
                f"{m.value:.4g}" + (f" ± {m.error:.2g}" if m.error else "")
                for m in result.judgement.measures
                if m.key in shown
            ),
        )
        for length, result in results
    ]
    _print_table(("ema", *names), rows)
    print(f"n = {first.n} samples from the same noise; reference: {first.reference}")
    print(f"protocol: {first.protocol}")


def _print_judgement(judgement: Any) -> None:
    _print_numbers(judgement)
    print(f"protocol: {judgement.protocol}")
    for warning in judgement.warnings:
        print(f"note: {warning}")


def _print_numbers(judgement: Any) -> None:
    _print_table(("", "value [95 % interval]", "real pictures", "better"), judgement.rows())
    print(f"n = {judgement.n} samples; reference: {judgement.reference}")
    if judgement.floor_n:
        others = judgement.floor_reference_n
        print(f"'real pictures': {judgement.floor_n} real pictures against {others} others")


def _print_table(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> None:
    rows = [head, *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _finish(as_json: bool, result: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False, default=str))


def main() -> None:
    """The entry point: errors a person can mend are one line on stderr, never a traceback."""
    try:
        app()
    except AlphabarError as error:
        say(f"alphabar: {error}")
        if "--json" in sys.argv:
            print(json.dumps({"error": str(error)}))
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
