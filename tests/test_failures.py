"""A training that runs out of memory or diverges: what it says, what it keeps, and how it goes on."""

import math
import shutil

import pytest
import torch

from alphabar.errors import AlphabarError, UsageError
from alphabar.recipes.derive import first_stage
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.failures import explained
from alphabar.training.launch import launch
from alphabar.training.loop import MAX_BAD_STEPS, begin, train
from alphabar.training.muon import Muon
from alphabar.training.state import TrainingState
from refusals import refused
from test_given_runtime import notes
from test_launch import TINY, launched
from training_child import tiny_dataset

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: can't allocate memory: 9 bytes"
    ),
    MemoryError(),
]
GAN = [
    "data.size=16",
    "network.width=4",
    "batch=8",
    "monitor.share=0",
    "monitor.samples=1",
    "monitor.distance=0",
]


def files(run: Run) -> dict[str, bytes]:
    checkpoint, problems = run.checkpoints.newest()
    assert not problems
    return {name: data for name, data in checkpoint.files.items() if name.endswith(".safetensors")}


def failing(monkeypatch, owner, name: str, at: int, error: Exception) -> None:
    """Makes a method fail when it is called for the at-th time."""
    whole, calls = getattr(owner, name), []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == at:
            raise error
        return whole(self, *args)

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.parametrize("error", MEMORY, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("recipe", ["lean", "gan"])
def test_without_memory_the_updates_until_then_are_kept(picture_folder, tmp_path, monkeypatch, recipe, error):
    settings = TINY if recipe == "lean" else GAN
    launched(picture_folder, run=tmp_path / "straight", recipe=recipe, settings=settings)
    options = {"run": tmp_path / "run", "recipe": recipe, "settings": settings}
    with monkeypatch.context() as patch:
        failing(patch, TrainingState, "_backward", 3, error)
        with pytest.raises(AlphabarError) as told:
            launched(picture_folder, images=32, **options)
    assert "8 images at once" in str(told.value) and "--set accumulate=2" in str(told.value)
    run = Run(tmp_path / "run")
    assert files(run) == files(Run(tmp_path / "straight"))  # of the two updates before; the critic's too
    options = {"run": run.path, "images": 32, "settings": [*settings, "accumulate=2"], "recipe": recipe}
    found = notes(picture_folder, runtime=Runtime(), **options)
    assert {"training.changed_settings", "training.same_batch", "training.resuming"} <= set(found)
    assert run.recipe.accumulate == 2 and run.checkpoints.newest()[0].images == 32


def test_weights_of_half_an_update_are_not_kept(picture_folder, tmp_path, monkeypatch):
    recipe = with_settings(named_recipe("lean"), [*TINY, "data.channels=3"])
    run = begin(tmp_path / "run", recipe)
    failing(monkeypatch, Muon, "step", 3, MEMORY[0])
    with pytest.raises(AlphabarError, match="memory"):
        for record in train(
            tiny_dataset(picture_folder), run, images=64, runtime=Runtime(), checkpoint_every=0
        ):
            assert record.images <= 16
    assert run.checkpoints.newest()[0].images == 16


def test_too_little_memory_to_begin_is_one_sentence_too(picture_folder, tmp_path, monkeypatch):
    def fails(*args, **more):
        raise MEMORY[1]

    monkeypatch.setattr("alphabar.training.resume.TrainingState", fails)
    with pytest.raises(AlphabarError, match="8 images at once"):
        launched(picture_folder, run=tmp_path / "run", recipe="lean")


def test_the_advice_fits_the_batch(tmp_path):
    run = Run(tmp_path)

    def told(*settings: str) -> str:
        return str(explained(MemoryError(), with_settings(named_recipe("lean"), settings), run))

    assert "--set accumulate=3" in told("batch=9") and "--set accumulate=4" in told("batch=8", "accumulate=2")
    assert "even for one image" in told("batch=4", "accumulate=4")
    outer = begin(tmp_path / "latent", with_settings(named_recipe("latent"), ["data.channels=3"]))
    inner = begin(outer.first_stage, first_stage(outer.recipe))
    said = str(explained(MemoryError(), inner.recipe, inner))
    assert "--recipe autoencoder --set accumulate=2" in said and "--autoencoder" in said
    assert explained(RuntimeError("shapes do not match"), named_recipe("lean"), run) is None
    assert "no checkpoint yet" in told() and "no checkpoint yet" in told("batch=1")
    (run.checkpoints.path / "000000008").mkdir(parents=True)
    assert "continues from its last checkpoint" in told() and "no checkpoint" not in told("batch=1")


def test_another_process_that_ended_is_one_sentence(tmp_path, monkeypatch):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:4711")
    assert explained(lost, named_recipe("lean"), Run(tmp_path)) is None  # of one process it is something else
    monkeypatch.setattr("alphabar.training.failures.distributed", lambda: True)
    assert "Another process" in str(explained(lost, named_recipe("lean"), Run(tmp_path)))


def test_a_loss_that_stays_not_finite_keeps_the_last_good_checkpoint(picture_folder, tmp_path, monkeypatch):
    recipe = with_settings(named_recipe("lean"), [*TINY, "data.channels=3"])
    run, whole, calls = begin(tmp_path / "run", recipe), TrainingState._backward, []

    def diverges(self, batch):
        calls.append(1)
        return whole(self, batch) * (math.nan if len(calls) > 3 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "_backward", diverges)
        with pytest.raises(AlphabarError) as told:
            list(train(tiny_dataset(picture_folder), run, images=999, runtime=Runtime(), checkpoint_every=0))
    assert len(calls) == 3 + MAX_BAD_STEPS
    for advice in ("--set optimizer.learning_rate=0.001", "--set optimizer.clip=1", "--runtime plain"):
        assert advice in str(told.value)
    assert run.checkpoints.newest()[0].images == 24
    launched(picture_folder, run=run.path, images=48, settings=["optimizer.learning_rate=0.001"])
    assert run.recipe.optimizer.learning_rate == 0.001 and run.checkpoints.newest()[0].images == 48


def test_a_checkpoint_after_which_nothing_is_finite_is_named(picture_folder, tmp_path, monkeypatch):
    recipe = with_settings(named_recipe("lean"), [*TINY, "data.channels=3"])
    run, whole = begin(tmp_path / "run", recipe), TrainingState._backward
    launched(picture_folder, run=run.path, images=16, settings=[])
    launched(picture_folder, run=run.path, images=24, settings=[])

    def lost(self, batch):
        return whole(self, batch) * (math.nan if self.images >= 24 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "_backward", lost)
        for again, folder in enumerate(("000000024", "000000016")):
            with pytest.raises(AlphabarError) as told:
                launched(picture_folder, run=run.path, images=999, settings=[])
            kept = told.value.message.values["kept"]
            if again:
                assert kept.identifier == "training.checkpoint_kept"
            else:
                assert kept.values == {"folder": run.path / "checkpoints" / folder}
                shutil.rmtree(kept.values["folder"])
    assert launched(picture_folder, run=run.path, images=48, settings=[]).images == 48


def test_a_smaller_batch_is_taken_when_it_is_asked_for(picture_folder, tmp_path):
    options = {"run": tmp_path / "run", "recipe": "lean", "runtime": Runtime()}
    launched(picture_folder, **options)
    smaller = [*TINY, "batch=4", "accumulate=2"]
    records = list(launch(str(picture_folder), **options, images=24, settings=smaller))
    told = " ".join(str(record.message) for record in records if record.message)
    assert "batch: 8 → 4; accumulate: 1 → 2" in told
    assert "sees 4 images, 2 at once, and not 8 as before; batch=8 with accumulate=4 would keep 8" in told
    run = Run(tmp_path / "run")
    assert (run.recipe.batch, run.recipe.accumulate) == (4, 2) and records[-1].result.images == 24
    # Not by accident: the command without it means another recipe, and nothing else may change with it.
    plain = [setting for setting in TINY if setting != "batch=8"]
    with refused("training.unnamed_settings", own="--set batch=4 --set accumulate=2"):
        launched(picture_folder, **options, images=32, settings=plain)
    own = ["batch=4", "accumulate=2"]  # as the message says
    assert launched(picture_folder, **options, settings=[*plain, *own]).images == 24
    # What may change is not named where something else may not.
    with refused("training.other_recipe", differences="data.flip: True → False"):
        settings = [*smaller, "sampling.steps=3", "monitor.samples=2", "data.flip=false"]
        launched(picture_folder, **options, images=32, settings=settings)
    assert (run.recipe.batch, run.recipe.data.flip) == (4, True)
    assert launched(picture_folder, run=run.path, images=32, settings=[]).images == 32


def test_settings_that_change_no_weights_may_change(picture_folder, tmp_path):
    straight, run = tmp_path / "straight", tmp_path / "run"
    for path in (straight, run):
        launched(picture_folder, run=path, recipe="lean")
    launched(picture_folder, run=straight, recipe="lean", images=24)
    changes = ["monitor.samples=2", "monitor.levels=1", "sampling.steps=3"]
    told = notes(picture_folder, run=run, recipe="lean", images=24, settings=[*TINY, *changes])
    assert "training.changed_settings" in told and not {"training.same_batch", "training.other_batch"} & set(
        told
    )
    assert (Run(run).recipe.monitor.samples, Run(run).recipe.sampling.steps) == (2, 3)
    assert files(Run(run)) == files(Run(straight))
    # Distillation learns the steps of its sampling.
    short = tmp_path / "short"
    launched(picture_folder, run=short, distill=run, steps=2, settings=[])
    with pytest.raises(UsageError, match=r"sampling\.sampler"):
        launched(picture_folder, run=short, distill=run, steps=2, settings=["sampling.sampler=euler"])
