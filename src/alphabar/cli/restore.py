"""TODO-DOC from cli"""

from pathlib import Path
from typing import Annotated

import typer

from alphabar.cli.app import app
from alphabar.cli.console import last_with_bar, print_json, say
from alphabar.cli.options import (
    DEGRADATION_HELP,
    AnswersOption,
    CountOption,
    ImageArgument,
    JsonOption,
    ModelArgument,
    NoiseOption,
    SeedOption,
    SolverOption,
    SolverPagOption,
    SolverStepsOption,
)


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

    from alphabar.restoration.degradation import parse_degradation
    from alphabar.restoration.photo import picture_files
    from alphabar.restoration.task import degrade_all
    from alphabar.sampling.outputs import check_free

    what = parse_degradation(degradation)
    check_free(out)
    files, names = picture_files(image)
    record = last_with_bar(degrade_all(files, names, what, out, seed), "spoiling")
    say(f"{record.done} pictures in {out}")
    print_json(as_json, {"out": str(out), "n": record.done, "degradation": degradation})


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

    from alphabar.images import image_grid as sheet
    from alphabar.restoration.degradation import parse_degradation
    from alphabar.restoration.restore import restore as library_restore
    from alphabar.restoration.settings import restoration_settings
    from alphabar.restoration.task import panels, read_task, write_answers
    from alphabar.runs.model import load_model
    from alphabar.sampling.outputs import check_free

    what = parse_degradation(degradation)
    check_free(out)
    task = read_task(image, what)
    loaded = load_model(model)
    settings = restoration_settings(
        loaded, task.operator, task.sigma_y, seed=seed, solver=solver, steps=steps, pag=pag
    )
    records = library_restore(loaded, task.y, task.operator, task.sigma_y, n=n, settings=settings)
    answers = last_with_bar(records, "restoring").result[:, 0]
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "degradation": degradation,
        "sigma_y": task.sigma_y,
        **settings.to_dict(),
    }
    shown = panels(task, answers)
    overview = {"overview": sheet(shown, len(shown))}
    if n > 1:
        overview["spread"] = sheet(shown[-1:])
    write_answers(task, answers, out, about, overview)
    say(f"{n} answer{'s' * (n > 1)} in {out}, with overview.png")
    print_json(as_json, {"out": str(out), "n": n, **about})
