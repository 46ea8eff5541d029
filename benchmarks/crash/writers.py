"""Two processes that write the same thing at the same time."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from alphabar import Run, load_model
from crash.children import Ended, command, run
from crash.commands import IMAGES
from crash.material import QUIET, SMALL, Material, leftovers
from crash.trials import Trial

ROUNDS = 8


def trials(material: Material) -> Iterator[Trial]:
    """Pairs of commands over one run, one folder for results and one cache, each pair several times."""
    place = material.folder / "writers"
    evaluate = ("evaluate", place / "run", "--against", material.pictures, "-n", 8)
    small = [part for s in (*QUIET, "data.size=16", "batch=8", *SMALL["ddpm"]) for part in ("--set", s)]
    small += ["--recipe", "ddpm", "--runtime", "plain"]
    train = (
        "train",
        material.pictures,
        "--run",
        place / "new",
        "--recipe",
        "ddpm",
        "--images",
        IMAGES,
        *small,
    )
    sample = ("sample", material.model, "-n", 4, "--steps", 3, "--out", place / "out")
    pairs = {
        "two trainings of one run, one cache": (train, train),
        "two evaluations of one run": (evaluate, evaluate),
        "two reports of one run": (("report", place / "run"), ("report", place / "run")),
        "an evaluation and a report": (evaluate, ("report", place / "run")),
        "a training and its evaluation": (train, ("evaluate", place / "new", *evaluate[2:])),
        "two samplings into one folder": (sample, sample),
        "two inspections, one cache": (("inspect", material.pictures), ("inspect", material.pictures)),
    }
    for words, pair in pairs.items():
        for i in range(ROUNDS):

            def do(pair: tuple[tuple[object, ...], tuple[object, ...]] = pair) -> list[str]:
                return list(_try(material, place, *pair))

            yield Trial(f"writers: {words}, {i}", "two processes that write the same", do)


def _try(material: Material, place: Path, a: tuple[object, ...], b: tuple[object, ...]) -> Iterator[str]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copytree(material.model, place / "run")
    first, second = _at_once(_work(place, a), _work(place, b), place)
    for ended in (first, second):
        if ended.crashed:
            yield ended.crashed
    if first.code and second.code:
        yield f"neither succeeded: {first.said[-150:]} / {second.said[-150:]}"
    if left := leftovers(place):
        yield f"left unfinished: {left[0].name}"
    for path in (place / "run", place / "new"):
        if Run(path).exists:
            load_model(path)
            if problems := Run(path).checkpoints.newest()[1]:
                yield str(problems[0])
    out = place / "out"
    if out.exists() and len(list(out.glob("*.png"))) != 4:
        yield f"{len(list(out.glob('*.png')))} of 4 samples"


def _work(place: Path, arguments: tuple[object, ...]) -> Callable[[], None]:
    def work() -> None:
        os.environ["ALPHABAR_CACHE"] = str(place / "cache")
        command(*arguments)()

    return work


def _at_once(a: Callable[[], None], b: Callable[[], None], folder: Path) -> tuple[Ended, Ended]:
    ended: dict[int, Ended] = {}
    threads = [
        threading.Thread(target=lambda i=i, work=work: ended.update({i: run(work, folder=folder)}))
        for i, work in enumerate((a, b))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended[0], ended[1]
