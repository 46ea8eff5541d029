"""Kill a training again and again, let it finish, and compare it bit for bit with one never disturbed.

    python benchmarks/survival.py > docs/results/survival.md

Every kill is SIGKILL at a random moment; the last ``--in-save`` of them strike while a checkpoint is being
written. Ends with an error where a bit differs.
"""

import argparse
import hashlib
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alphabar.runs.run import Run

CHILD = Path(__file__).parents[1] / "tests" / "training_child.py"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def start(data: str, run: Path, images: int, checkpoint_seconds: float) -> subprocess.Popen:
    command = [sys.executable, str(CHILD), data, str(run), str(images), str(checkpoint_seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(data: str, run: Path, images: int) -> None:
    child = start(data, run, images, 1000)
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(errors)


def finished(run: Path) -> set[str]:
    return {p.name for p in (run / "checkpoints").glob("[0-9]*")}


def half_written(run: Path) -> bool:
    return any((run / "checkpoints").glob(".writing-*"))


def kill_once(data: str, run: Path, in_save: bool, moment: float) -> bool:
    """Start the training, kill it, and tell whether the kill left a half-written checkpoint.

    It checkpoints after every update. ``moment``: seconds to wait after the first new checkpoint, where the
    kill is not to strike a save.
    """
    before = finished(run)
    child = start(data, run, 1_000_000, 0)
    while finished(run) <= before:
        if child.poll() is not None:
            raise SystemExit(child.communicate()[1])
        time.sleep(0.002)
    if in_save:
        while not half_written(run):
            pass
    else:
        time.sleep(moment)
    child.kill()
    child.communicate()
    return half_written(run)


def hashes(run: Path, images: int) -> dict[str, str]:
    checkpoint, problems = Run(run).checkpoints.newest()
    if checkpoint is None or problems or checkpoint.images != images:
        raise SystemExit(f"{run} did not end at {images} images: {problems}")
    return {name: hashlib.sha256(checkpoint.files[name]).hexdigest() for name in FILES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-save", type=int, default=5)
    parser.add_argument("--data", default="toycars:200")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, straight = Path(folder) / "killed", Path(folder) / "straight"
        struck, reached = 0, []
        for kill in range(options.kills):
            in_save = kill >= options.kills - options.in_save
            struck += kill_once(options.data, killed, in_save, rng.uniform(0, 1))
            newest, _ = Run(killed).checkpoints.newest()
            reached.append(newest.images if newest else 0)
        images = reached[-1] + 80
        finish(options.data, killed, images)
        finish(options.data, straight, images)
        after, reference = hashes(killed, images), hashes(straight, images)
    print(f"# Survival\n\n```\n{shlex.join(['python', 'benchmarks/survival.py', *sys.argv[1:]])}\n```\n")
    print(
        "A small training (16×16, a U-Net with dropout and EMA, a checkpoint after every update) is killed\n"
        "with SIGKILL again and again, goes on each time with the same command, and is compared with one\n"
        "that was never disturbed.\n"
    )
    print(f"{options.kills} kills, of which {struck} left a half-written checkpoint.")
    print(f"Images at the newest whole checkpoint after each: {', '.join(map(str, reached))}.")
    print(f"Then left alone until {images} images.\n")
    print("| file | after the kills | never disturbed | equal |\n|---|---|---|---|")
    for name in FILES:
        same = "yes" if after[name] == reference[name] else "NO"
        print(f"| {name} | {after[name][:16]}… | {reference[name][:16]}… | {same} |")
    if after != reference:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
