"""SIGKILL at random moments and inside saves, for every recipe and runtime; a killed rank of two."""

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from crash.children import Disk, arm, run, sending
from crash.material import RUNTIMES, SMALL, Material, Training, differences
from crash.trials import Trial

IMAGES = 1200  # of every training; more than it reaches between two kills
EVERY_FOURTH = 4  # kill comes inside a save
OPERATIONS = 60  # a save and its clearing up take about so many


def trials(material: Material, count: int, seed: int) -> Iterator[Trial]:
    """Trainings killed again and again, ``count`` kills in all, then compared with undisturbed ones."""
    trainings = [*(Training(name) for name in SMALL), *material.derived]
    pairs = [(training, runtime) for training in trainings for runtime in RUNTIMES]
    for i, (training, runtime) in enumerate(pairs):
        kills = count // len(pairs) + (i < count % len(pairs))
        name = f"kills: {training.recipe}, {runtime}, {kills} of seed {seed}"

        def do(
            training: Training = training, runtime: str = runtime, kills: int = kills, name: str = name
        ) -> list[str]:
            folder = material.folder / "kills"
            fault = _killed_and_compared(folder, material.pictures, training, runtime, kills, name)
            return [fault] if fault else []

        yield Trial(name, "SIGKILL in a training, bits compared at the end", do, kills)


def _killed_and_compared(
    folder: Path, pictures: Path, training: Training, runtime: str, kills: int, name: str
) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    killed, undisturbed = folder / "killed", folder / "undisturbed"
    rng = random.Random(name)
    how = RUNTIMES[runtime]
    work = training.work(pictures, killed, IMAGES, runtime=how)
    for kill in range(kills):
        if kill % EVERY_FOURTH == EVERY_FOURTH - 1:
            at = rng.randint(1, OPERATIONS)

            def armed(at: int = at) -> None:
                arm(killed / "checkpoints", at, Disk.KILL)
                work()

            ended = run(armed, folder=folder)
        else:
            ended = run(work, folder=folder, meanwhile=sending((signal.SIGKILL,), rng.uniform(0.05, 1.5)))
        if ended.code == 0:
            break  # the training was faster than the kill
        if ended.code != -signal.SIGKILL:
            return f"kill {kill}: {ended.crashed or ended.said[-200:]}"
    for path in (killed, undisturbed):
        ended = run(training.work(pictures, path, IMAGES, every=1000, runtime=how), folder=folder)
        if ended.code:
            return f"going on: {ended.crashed or ended.said[-200:]}"
    return differences(killed, undisturbed, IMAGES)
