"""Every recipe resumes bit for bit in every runtime that the probe can choose, and on several processes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alphabar.recipes.derive import distilled
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.labels import conditions_of
from alphabar.training.loop import begin, train
from alphabar.training.state import TrainingState
from training_child import tiny_dataset

BEFORE, AFTER = 10, 5
UNET = ["network.widths=[8,16]", "network.head_dim=8"]
NETWORKS = {
    "classic": ["network.widths=[8,16]"],
    "ddpm": UNET,
    "edm": UNET,
    "lean": UNET,
    "nested": UNET,
    "autoencoder": ["network.widths=[8,8,8]"],
    "gan": ["network.width=4"],
    "vae": ["network.width=4"],
    "classifier": [*UNET, "condition.on=class"],
}
BF16 = torch.bfloat16
CHOICES = itertools.product((None, BF16), (False, True), (False, True))
EAGER = [Runtime(dtype=dtype, channels_last=c, fused=f) for dtype, c, f in CHOICES]
COMPILED = [Runtime(dtype=dtype, channels_last=True, compile=True, fused=True) for dtype in (None, BF16)]
RECIPES = [*NETWORKS, "distilled"]
# Quick ones: every memory format with every optimizer, and bf16 with both.
QUICK = [runtime for runtime in EAGER if runtime.dtype is None or (runtime.channels_last and runtime.fused)]
CASES = [(name, runtime) for name in RECIPES for runtime in EAGER]
CASES += [
    (n, runtime)
    for n in RECIPES
    for runtime in COMPILED
    if n not in ("gan", "vae", "classifier", "autoencoder")
]


def tiny(name: str) -> Recipe:
    if name == "distilled":
        return distilled(tiny("lean"), 2)
    return with_settings(named_recipe(name), ["data.size=16", "batch=4", "ema.half_life=64", *NETWORKS[name]])


@pytest.fixture(scope="module")
def dataset(picture_folder, tmp_path_factory):
    """The pictures, as if of two classes, half of each."""
    folder = tmp_path_factory.mktemp("classes")
    for i, path in enumerate(sorted(Path(picture_folder).glob("*.png"))):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        (folder / f"{i % 2}" / path.name).write_bytes(path.read_bytes())
    return tiny_dataset(folder)


def opened(dataset, recipe: Recipe, runtime: Runtime) -> TrainingState:
    return TrainingState(dataset, recipe, runtime, conditions_of(dataset, recipe))


def steps(training: TrainingState, n: int) -> None:
    for _ in range(n):
        training.step(training.loader.batch(training.images), 1e-2, 0.0)


def tensors(training: TrainingState) -> dict[str, torch.Tensor]:
    """Everything that updates move, by name."""
    networks = {"": training.network, "ema.": training.ema.network}
    optimizers = {"optimizer": training.optimizer}
    if hasattr(training.method, "critic"):
        networks["critic."] = training.method.critic
        optimizers["critic_optimizer"] = training.method.optimizer
    if hasattr(training.method, "teacher"):
        networks["teacher."] = training.method.teacher
    moved = {a + b: v for a, network in networks.items() for b, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            moved |= {f"{name}.{i}.{key}": value for key, value in moments.items()}
    return moved


def described(runtime: Runtime) -> str:
    chosen = ("channels_last", "compile", "fused")
    return "+".join(["bf16" if runtime.dtype else "fp32", *(key for key in chosen if getattr(runtime, key))])


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        pytest.param(name, runtime, marks=[] if runtime in QUICK else pytest.mark.slow)
        for name, runtime in CASES
    ],
    ids=[f"{name}-{described(runtime)}" for name, runtime in CASES],
)
def test_ten_updates_and_five_are_fifteen(dataset, tmp_path, name, runtime):
    torch.compiler.reset()
    recipe = tiny(name)
    straight = opened(dataset, recipe, runtime)
    steps(straight, BEFORE)
    files = straight.files(b"")
    steps(straight, AFTER)
    resumed = opened(dataset, recipe, runtime)
    resumed.load(files, json.loads(files["state.json"]), tmp_path)
    steps(resumed, AFTER)
    straight.loader.close()
    resumed.loader.close()
    expected, found = tensors(straight), tensors(resumed)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert (value.double() - found[key].double()).abs().max() == 0, key


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [Runtime(), EAGER[-1]], ids=described)
@pytest.mark.parametrize("name", ["classic", "ddpm", "edm", "lean", "nested", "distilled"])
def test_two_processes_resume_bit_for_bit(picture_folder, tmp_path, name, runtime):
    (tmp_path / "runtime.json").write_text(json.dumps(runtime.to_dict()))
    settings = ["data.size=16", "batch=4", "monitor.share=0", "monitor.samples=1", "monitor.distance=0"]
    # The end of a training decides when the learning rate decays, and the part before has another end.
    settings += ["monitor.levels=0", "optimizer.decay_from=1", *NETWORKS.get(name, [])]

    def run(path: Path, updates: int) -> None:
        command = ["train", picture_folder, "--recipe", name]
        if name == "distilled":
            command = ["distill", tmp_path / "teacher", picture_folder, "--steps", "2"]
        command += ["--run", path, "--images", 4 * updates, "--runtime", tmp_path / "runtime.json"]
        command += [part for setting in settings for part in ("--set", setting)]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
        done = subprocess.run(
            [*torchrun, "--", "alphabar.cli", *map(str, command)],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    if name == "distilled":
        begin(tmp_path / "teacher", with_settings(tiny("lean"), ["data.channels=3", *settings]))
        list(train(tiny_dataset(picture_folder), Run(tmp_path / "teacher"), images=8, runtime=Runtime()))
    run(tmp_path / "straight", BEFORE + AFTER)
    run(tmp_path / "resumed", BEFORE)
    run(tmp_path / "resumed", BEFORE + AFTER)
    files = [Run(tmp_path / path).checkpoints.newest()[0].files for path in ("straight", "resumed")]
    tensors = [{f: data for f, data in found.items() if f.endswith(".safetensors")} for found in files]
    assert tensors[0] == tensors[1] and len(tensors[0]) >= 3
