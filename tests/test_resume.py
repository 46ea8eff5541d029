"""Every recipe resumes bit for bit, in every memory format and with every optimizer."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime
from alphabar.training.labels import conditions_of
from alphabar.training.state import TrainingState
from training_child import tiny_dataset

BEFORE, AFTER = 10, 5
UNET = ["network.widths=[8,16]", "network.head_dim=8"]
NETWORKS = {
    "classic": ["network.widths=[8,16]"],
    "ddpm": UNET,
    "edm": UNET,
    "lean": UNET,
    "gan": ["network.width=4"],
    "vae": ["network.width=4"],
    "classifier": [*UNET, "condition.on=class"],
}
RUNTIMES = [Runtime(channels_last=c, fused=f) for c, f in itertools.product((False, True), repeat=2)]


def tiny(name: str) -> Recipe:
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
    moved = {a + b: v for a, network in networks.items() for b, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            moved |= {f"{name}.{i}.{key}": value for key, value in moments.items()}
    return moved


@pytest.mark.parametrize(
    "runtime", RUNTIMES, ids=lambda r: f"channels_last={r.channels_last},fused={r.fused}"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_updates_and_five_are_fifteen(dataset, tmp_path, name, runtime):
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
