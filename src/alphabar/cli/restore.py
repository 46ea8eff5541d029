"""The commands ``inpaint``, ``upscale``, ``restore`` and ``degrade``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.cli.console import print_json, run_to_end, say
from alphabar.cli.options import ImageArgument, JsonOption, ModelArgument, OutOption, SeedOption
from alphabar.restoration.solvers.registry import SOLVERS

CountOption = Annotated[
    int, typer.Option("-n", metavar="N", help="Number of restorations; from 2 on with a map of their spread.")
]
SolverOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"{', '.join(SOLVERS)}; by default chosen for the degradation."),
]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Steps of the solver.", show_default="25")]
PagOption = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Scale of perturbed-attention guidance; 0 is none.",
        show_default="chosen for the degradation and the model",
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        metavar="STD", help="Noise in the picture, where 2 is black to white, or auto to estimate it."
    ),
]
DegradationOption = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="The degradation, for example downsample:4, blur:1.5+noise:0.05, motion:9,45, grayscale,"
        " jpeg:10, noise:auto, random:0.7 or mask:FILE+noise:0.1.",
    ),
]


def inpaint(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    mask: Annotated[
        str,
        typer.Option(
            metavar="MASK",
            help="A mask picture (what is white, or painted on a clear layer, is filled in), box:x0,y0,x1,y1,"
            " random:0.7 or strokes:0.2.",
        ),
    ],
    n: CountOption = 4,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Fill in the missing part of a picture. Without noise, the known pixels stay untouched.

    For example: alphabar inpaint cars64 car.png --mask box:20,20,44,44 --out filled
    """
    generated = mask.partition(":")[0] in ("box", "random", "strokes")
    degradation = f"{mask if generated else f'mask:{mask}'}+noise:{noise}"
    _restore(model, image, degradation, out, as_json, n=n, solver=solver, steps=steps, pag=pag, seed=seed)


def upscale(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    factor: Annotated[int, typer.Option(metavar="N", help="How many times wider and higher.")] = 4,
    n: CountOption = 1,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Enlarge a picture that was reduced bicubically.

    For example: alphabar upscale cars64 small.png --factor 4 --out large
    """
    degradation = f"downsample:{factor}+noise:{noise}"
    _restore(model, image, degradation, out, as_json, n=n, solver=solver, steps=steps, pag=pag, seed=seed)


def restore(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    degradation: DegradationOption,
    n: CountOption = 1,
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Undo blur, noise, compression, missing colour or missing pixels, or several of them.

    For example: alphabar restore cars64 old.jpg --degradation jpeg:10 --out restored
    """
    _restore(model, image, degradation, out, as_json, n=n, solver=solver, steps=steps, pag=pag, seed=seed)


def degrade(
    image: Annotated[Path, typer.Argument(metavar="IMAGE|FOLDER", help="A picture, or a folder of them.")],
    out: OutOption,
    degradation: DegradationOption,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Degrade pictures in a known way, to try restoration on. Those that cannot be read are named.

    For example: alphabar degrade car.png --degradation blur:2+noise:0.05 --out blurred
    """
    from alphabar.restoration.degradation import parse_degradation
    from alphabar.restoration.task import degrade_files
    from alphabar.sampling.outputs import check_free

    parsed = parse_degradation(degradation)
    check_free(out)
    count = run_to_end(degrade_files(image, parsed, out, seed))
    say(f"{count} degraded pictures are in {out}")
    print_json(as_json, {"out": str(out), "n": count, "degradation": degradation})


def _restore(
    model: Path,
    image: Path,
    degradation: str,
    out: Path,
    as_json: bool,
    *,
    n: int,
    pag: float | None,
    **chosen: Any,
) -> None:
    """Restore one picture and write the results. chosen: what `restoration_settings` takes."""
    from alphabar.images import image_grid
    from alphabar.restoration.degradation import parse_degradation
    from alphabar.restoration.restore import restore as restore_task
    from alphabar.restoration.settings import restoration_settings
    from alphabar.restoration.task import panels, read_task, write_restored
    from alphabar.runs.model import load_model
    from alphabar.sampling.outputs import check_free

    parsed = parse_degradation(degradation)
    check_free(out)
    loaded = load_model(model)
    task = read_task(image, parsed, loaded.codec.channels)
    for note in task.notes:
        say(note)
    settings = restoration_settings(
        loaded, task.operator, task.sigma_y, guidance=None if pag is None else {"pag": pag}, **chosen
    )
    answers = run_to_end(restore_task(loaded, task.y, task.operator, task.sigma_y, n=n, settings=settings))[
        :, 0
    ]
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "degradation": degradation,
        "sigma_y": task.sigma_y,
        **settings.to_dict(),
    }
    shown = panels(task, answers)
    overview = {"overview": image_grid(shown, len(shown))}
    if n > 1:
        overview["spread"] = image_grid(shown[-1:])
    write_restored(task, answers, out, about, overview)
    say(f"{n} restoration{'s' * (n > 1)} and overview.png are in {out}")
    print_json(as_json, {"out": str(out), "n": n, **about})
