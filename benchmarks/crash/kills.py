"""SIGKILL at random moments and inside saves, for every recipe and runtime; a killed rank of two."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from crash.children import Disk, arm, run, sending
from crash.material import RUNTIMES, SMALL, Material, Training, differences, weights
from crash.trials import Trial

IMAGES = 1200  # of every training; more than it reaches between two kills
IMAGES_OF_TWO = 2400
EVERY_FOURTH = 4  # kill comes inside a save
OPERATIONS = 60  # a save and its clearing up take about so many


def trials(material: Material, count: int, ranks: int, seed: int) -> Iterator[Trial]:
    """Trainings killed again and again, ``count`` kills in all, then compared with undisturbed ones.

    ranks: how often each of two processes that train together is killed.
    """
    trainings = [*(Training(name) for name in SMALL), *material.derived]
    pairs = [(training, runtime) for training in trainings for runtime in RUNTIMES]
    for i, (training, runtime) in enumerate(pairs):
        kills = count // len(pairs) + (i < count % len(pairs))
        if kills == 0:
            continue
        name = f"kills: {training.recipe}, {runtime}, {kills} of seed {seed}"

        def do(
            training: Training = training, runtime: str = runtime, kills: int = kills, name: str = name
        ) -> list[str]:
            folder = material.folder / "kills"
            fault = _killed_and_compared(folder, material.pictures, training, runtime, kills, name)
            return [fault] if fault else []

        yield Trial(name, "SIGKILL in a training, bits compared at the end", do, kills)
    for rank in (0, 1):
        for moment in range(ranks):

            def kill_one(rank: int = rank, moment: int = moment) -> list[str]:
                after = random.Random(f"{seed} {rank} {moment}").uniform(0, 2)
                fault = _one_of_two_killed(material, rank, after)
                return [fault] if fault else []

            name = f"kills: rank {rank} of two, {moment} of seed {seed}"
            yield Trial(name, "one process of two killed, bits compared at the end", kill_one)


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


def _one_of_two_killed(material: Material, rank: int, after: float) -> str:
    folder = material.folder / "ranks"
    killed, undisturbed = folder / "killed", folder / "undisturbed"
    shutil.rmtree(killed, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    child = Path(__file__).parents[2] / "tests" / "training_child.py"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(child),
    ]

    def start(run: Path, every: float) -> subprocess.Popen[bytes]:
        arguments = [str(material.pictures), str(run), str(IMAGES_OF_TWO), str(every)]
        log = open(folder / f"{run.name}.log", "wb")  # noqa: SIM115
        return subprocess.Popen([*torchrun, *arguments], stdout=log, stderr=log)

    launcher = start(killed, 0.0)
    while launcher.poll() is None and not list((killed / "checkpoints").glob("[0-9]*")):
        time.sleep(0.02)
    time.sleep(after)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    if len(children) != 2:
        return f"{len(children)} processes train instead of two"
    os.kill(int(children[rank]), signal.SIGKILL)
    try:
        launcher.wait(120)
    except subprocess.TimeoutExpired:
        launcher.kill()
        return "the other process does not end"
    for path in (killed, undisturbed):
        # One undisturbed training serves all trials.
        if not isinstance(weights(path, IMAGES_OF_TWO), str):
            continue
        if code := start(path, 1000.0).wait(300):
            said = (folder / f"{path.name}.log").read_text(errors="replace")
            return f"going on, code {code}: {said}"  # whole: the reason stands before the launcher's words
    return differences(killed, undisturbed, IMAGES_OF_TWO)
