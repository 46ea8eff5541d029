"""When a training ends, how long it takes until then, and which weights it keeps for autoguidance."""

import json
import platform

import pytest
import torch

from alphabar.runtime import Runtime
from alphabar.tensor_files import unpack_tensors
from alphabar.training.loop import begin, train
from alphabar.training.records import Limits
from alphabar.training.state import TrainingState
from alphabar.training.writer import write_environment
from training_child import tiny_dataset, tiny_recipe


@pytest.mark.parametrize(
    ("images", "budget", "seen", "seconds", "share", "left"),
    [
        (100, None, 40, 7.0, 0.4, 10.0),  # 60 images at 6 a second
        (None, 50.0, 40, 20.0, 0.4, 30.0),
        (100, 50.0, 40, 45.0, 0.9, 5.0),  # whichever comes first
        (100, 50.0, 88, 5.0, 0.88, 2.0),
        (100, None, 120, 7.0, 1.0, 0.0),
        (None, 50.0, 40, 70.0, 1.0, 0.0),
    ],
)
def test_the_share_that_is_done_and_the_time_that_is_left(images, budget, seen, seconds, share, left):
    limits = Limits(images, budget)
    assert limits.share(seen, seconds) == pytest.approx(share)
    assert limits.seconds_left(seen, seconds, rate=6.0) == pytest.approx(left)
    assert limits.reached(seen, seconds) == (share == 1.0)


@pytest.mark.parametrize("half_life", [64, 0])
def test_the_early_weights_are_those_that_sample(picture_folder, half_life):
    recipe = tiny_recipe(f"ema.half_life={half_life}")
    training = TrainingState(tiny_dataset(picture_folder), recipe, Runtime(), None)
    for _ in range(3):
        training.step(training.loader.batch(training.images), 1e-2, 0.0)
    training.loader.close()
    training.keep_early()
    kept, network = unpack_tensors(training.early), training.evaluated().network
    assert kept.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(kept[name], value.half())


def test_the_early_weights_are_kept_after_an_eighth(picture_folder, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    kept = {}
    for _ in train(tiny_dataset(picture_folder), run, images=72, runtime=Runtime(), checkpoint_every=0):
        if checkpoint := run.checkpoints.newest()[0]:
            kept[checkpoint.images] = checkpoint.files.get("early.safetensors")
    assert kept[8] is None and kept[16] is not None  # 72 / 8 = 9
    assert kept[72] == kept[16]


def test_what_writes_is_closed_at_the_end_of_a_training(picture_folder, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr("alphabar.training.writer.RunWriter.close", lambda self: closed.append(self))
    run = begin(tmp_path / "run", tiny_recipe())
    list(train(tiny_dataset(picture_folder), run, images=8, runtime=Runtime()))
    assert len(closed) == 1
    records = train(tiny_dataset(picture_folder), run, images=16, runtime=Runtime())
    next(record for record in records if record.loss is not None)
    records.close()
    assert len(closed) == 2


def test_the_environment_names_a_processor(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "")
    run, dataset = begin(tmp_path / "run", tiny_recipe()), tiny_dataset(picture_folder)
    write_environment(run, dataset, Runtime())
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["processor"] == platform.machine()
    assert environment["data"]["pictures"] == len(dataset.items)
