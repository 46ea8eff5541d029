"""Does a training that is killed again and again give the same weights as one that was never disturbed?

    python benchmarks/crash_safety.py

Starts a small training, kills it with SIGKILL at random moments, continues it each time with the same
command, and compares its last checkpoint, bit for bit, with that of an undisturbed training. The last
``--while-saving`` kills happen while a checkpoint is being written. Prints docs/results/crash_safety.md; ends
with an error where a bit differs. Takes about ten minutes on two cores.
"""

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alphabar.runs.run import Run
from common import argument_parser, print_command, print_section, print_table

TRAINING = Path(__file__).parents[1] / "tests" / "training_child.py"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def start(data: str, run: Path, images: int, checkpoint_seconds: float) -> subprocess.Popen[str]:
    """A training as a process of its own."""
    command = [sys.executable, str(TRAINING), data, str(run), str(images), str(checkpoint_seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(data: str, run: Path, images: int) -> None:
    """Train undisturbed until that many images."""
    training = start(data, run, images, 1000)
    _, errors = training.communicate()
    if training.returncode:
        raise SystemExit(errors)


def checkpoints(run: Path) -> set[str]:
    """The names of the complete checkpoints."""
    return {path.name for path in (run / "checkpoints").glob("[0-9]*")}


def half_written(run: Path) -> bool:
    """Whether a checkpoint is being written, or was when its training was killed."""
    return any((run / "checkpoints").glob(".writing-*"))


def kill_once(data: str, run: Path, while_saving: bool, delay: float) -> bool:
    """Start the training, kill it, and return whether the kill left a half-written checkpoint.

    The training writes a checkpoint after every update. delay: seconds between the first new checkpoint and
    the kill, where the kill need not happen while saving.
    """
    before = checkpoints(run)
    training = start(data, run, 1_000_000, 0)
    while checkpoints(run) <= before:
        if training.poll() is not None:
            raise SystemExit(training.communicate()[1])
        time.sleep(0.002)
    if while_saving:
        while not half_written(run):
            pass
    else:
        time.sleep(delay)
    training.kill()
    training.communicate()
    return half_written(run)


def hashes(run: Path, images: int) -> dict[str, str]:
    """SHA-256 of the files of the newest checkpoint, which must hold that many images."""
    checkpoint, problems = Run(run).checkpoints.newest()
    if checkpoint is None or problems or checkpoint.images != images:
        raise SystemExit(f"{run} did not end at {images} images: {problems}")
    return {name: hashlib.sha256(checkpoint.files[name]).hexdigest() for name in FILES}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--while-saving", type=int, default=5, help="kills while a checkpoint is written")
    parser.add_argument("--data", default="toycars:200")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, undisturbed = Path(folder) / "killed", Path(folder) / "undisturbed"
        left_half, reached = 0, []
        for kill in range(options.kills):
            while_saving = kill >= options.kills - options.while_saving
            left_half += kill_once(options.data, killed, while_saving, rng.uniform(0, 1))
            newest, _ = Run(killed).checkpoints.newest()
            reached.append(newest.images if newest else 0)
        images = reached[-1] + 80
        finish(options.data, killed, images)
        finish(options.data, undisturbed, images)
        found, expected = hashes(killed, images), hashes(undisturbed, images)
    print_section(
        "# Crash safety",
        "Does a training that is killed again and again give the same weights as one that was never"
        " disturbed?",
        "A small training (16×16, a U-Net with dropout and EMA, a checkpoint after every update) is killed"
        " with SIGKILL at random moments, continued each time with the same command, and compared with an"
        f" undisturbed training. There were {options.kills} kills, of which {left_half} left a half-written"
        f" checkpoint. The newest complete checkpoint after each kill held {', '.join(map(str, reached))}"
        f" images; then the training ran undisturbed to {images} images. The table shows the beginning of"
        " the SHA-256 of each file.",
    )
    rows = (
        (
            name,
            found[name][:16] + "…",
            expected[name][:16] + "…",
            "yes" if found[name] == expected[name] else "NO",
        )
        for name in FILES
    )
    print_table(("file", f"with {options.kills} kills", "undisturbed", "equal"), rows)
    print_command()
    if found != expected:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
