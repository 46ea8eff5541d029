"""The commands ``inpaint``, ``upscale``, ``restore`` and ``degrade``."""

from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphabar.cli.console import (
    ASK_ABOVE,
    confirm,
    kept,
    open_path,
    print_json,
    run_to_end,
    say,
    told_when_stopped,
)
from alphabar.cli.options import (
    ImageArgument,
    JsonOption,
    ModelArgument,
    OpenOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    YesOption,
    chosen_runtime,
)
from alphabar.codecs.base import reader_of
from alphabar.formatting import format_duration
from alphabar.messages import message
from alphabar.result_folder import check_count

if TYPE_CHECKING:
    from alphabar.restoration.degradation import Degradation
    from alphabar.restoration.restoration_folder import RestorationFolder
    from alphabar.restoration.settings import RestorationSettings
    from alphabar.runs.model import Model

CountOption = Annotated[int, typer.Option("-n", metavar="N", help="cli.help.restorations")]
SolverOption = Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.solver")]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="cli.help.solver_steps")]
PagOption = Annotated[float | None, typer.Option(metavar="S", help="cli.help.restoration_pag")]
NoiseOption = Annotated[str, typer.Option(metavar="STD", help="cli.help.noise")]
DegradationOption = Annotated[str, typer.Option(metavar="SPEC", help="cli.help.degradation")]


def inpaint(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    mask: Annotated[str, typer.Option(metavar="MASK", help="cli.help.mask")],
    n: CountOption = 4,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = 0,
    yes: YesOption = False,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fill in the missing part of a picture. Without noise, the known pixels stay untouched."""
    from alphabar.restoration.degradation import inpainting

    _restore(
        model, image, inpainting(mask, noise), out, as_json, yes, show,
        n=n, solver=solver, steps=steps, pag=pag, precision=precision, seed=seed,
    )  # fmt: skip


def upscale(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    factor: Annotated[int, typer.Option(metavar="N", help="cli.help.factor")] = 4,
    n: CountOption = 1,
    noise: NoiseOption = "0",
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = 0,
    yes: YesOption = False,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enlarge a picture that was reduced bicubically."""
    from alphabar.restoration.degradation import parse_degradation

    _restore(
        model, image, parse_degradation(f"downsample:{factor}+noise:{noise}"), out, as_json, yes, show,
        n=n, solver=solver, steps=steps, pag=pag, precision=precision, seed=seed,
    )  # fmt: skip


def restore(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    degradation: DegradationOption,
    n: CountOption = 1,
    solver: SolverOption = None,
    steps: StepsOption = None,
    pag: PagOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = 0,
    yes: YesOption = False,
    show: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Undo blur, noise, compression, missing colour or missing pixels, or several of them."""
    from alphabar.restoration.degradation import parse_degradation

    _restore(
        model, image, parse_degradation(degradation), out, as_json, yes, show,
        n=n, solver=solver, steps=steps, pag=pag, precision=precision, seed=seed,
    )  # fmt: skip


def degrade(
    image: Annotated[Path, typer.Argument(metavar="IMAGE|FOLDER", help="cli.help.images_or_folder")],
    out: OutOption,
    degradation: DegradationOption,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Degrade pictures in a known way, to try restoration on. Those that cannot be read are named."""
    from alphabar.restoration.degradation import parse_degradation
    from alphabar.restoration.task import DegradedFolder, degrade_into

    folder = DegradedFolder(out, image, parse_degradation(degradation), seed)
    with told_when_stopped(lambda: kept(folder)):
        count = run_to_end(degrade_into(folder))
    say(message("cli.degraded", n=count, out=out))
    print_json(as_json, {"out": str(out), "n": count, "degradation": degradation})


def _restore(
    model: Path,
    image: Path,
    degradation: "Degradation",
    out: Path,
    as_json: bool,
    yes: bool,
    show: bool,
    *,
    n: int,
    pag: float | None,
    precision: str | None,
    **chosen: Any,
) -> None:
    """Restore one picture and write the results. chosen: what `restoration_settings` takes."""
    from alphabar.restoration.degradation import file_hash
    from alphabar.restoration.restoration_folder import RestorationFolder, choose_for
    from alphabar.restoration.settings import model_notes, restoration_settings
    from alphabar.restoration.task import read_task
    from alphabar.runs.model import load_model

    check_count(n)
    loaded = load_model(model)
    task = read_task(image, degradation, reader_of(loaded.codec).channels)
    for note in (*task.notes, *model_notes(loaded)):
        say(note)
    settings = restoration_settings(
        loaded, task.operator, task.sigma_y, guidance=None if pag is None else {"pag": pag}, **chosen
    )
    records = choose_for(loaded, task, n, settings, out / "restoration.json", precision)
    loaded, runtime = chosen_runtime(records, out)
    about = {
        "model": str(model),
        "images": loaded.images,
        "image": str(image),
        "degradation": degradation.text,
        "sigma_y": task.sigma_y,
        **settings.to_dict(),
        "runtime": runtime,
    }
    contents = [file_hash(image), *degradation.contents]
    decisive = {**about, "weights": loaded.fingerprint[:16], "contents": contents}
    folder = RestorationFolder(out, task, decisive, n)
    with told_when_stopped(lambda: kept(folder)):
        _fill(folder, loaded, settings, yes)
    say(message("cli.restored", n=n, out=out, overview=folder.overview))
    open_path(folder.overview, show)
    print_json(as_json, {"out": str(out), "n": n, **about})


def _fill(folder: "RestorationFolder", model: "Model", settings: "RestorationSettings", yes: bool) -> None:
    """Restore what is missing. Size and memory are said before, the time after a step; long work needs a yes.

    yes: ask nothing. Where the person says no, the command ends.
    """
    from alphabar.memory import free_memory
    from alphabar.restoration.restoration_folder import restore_into
    from alphabar.restoration.restore import workload

    task, records = folder.task, restore_into(folder, model, settings)
    if not (n := folder.n - folder.kept()):
        run_to_end(records)
        return
    work = workload(model, task.y, task.operator, task.sigma_y, n=n, settings=settings)
    height, width = task.photo.pixels.shape[:2]
    rows, columns = task.operator.shape[1:]
    say(
        message(
            "cli.restoring", before=f"{width}×{height}", after=f"{columns}×{rows}",
            n=n, tiles=work.tiles, steps=settings.steps, memory=max(work.memory / 2**30, 0.1),
        )
    )  # fmt: skip
    if work.memory > (free := free_memory(str(model.device))):
        say(message("cli.little_memory", free=free / 2**30))
        confirm(yes)
    began = monotonic()
    first = next(iter(records))
    seconds = (monotonic() - began) * work.total / work.first
    say(message("cli.takes_about", duration=format_duration(seconds)))
    if seconds > ASK_ABOVE:
        confirm(yes)
    run_to_end(chain([first], records))
