"""Checkpoints that cannot be listed, are damaged, or hold what no training wrote."""

import math
import shutil

import pytest
import torch

from alphabar.errors import AlphabarError
from alphabar.files import Damaged, pack_json, write_folder
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors
from alphabar.training.loop import begin, train
from refusals import refused
from training_child import tiny_dataset, tiny_recipe


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return tiny_dataset(picture_folder)


def test_checkpoints_that_cannot_be_listed_are_no_new_beginning(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    list(train(dataset, run, images=16, runtime=Runtime()))
    log = (run.path / "log.jsonl").read_bytes()
    run.checkpoints.path.rename(tmp_path / "elsewhere")
    run.checkpoints.path.write_text("no folder")
    with refused("files.unreadable", AlphabarError, path=run.checkpoints.path):
        list(train(dataset, run, images=32, runtime=Runtime()))
    assert (run.path / "log.jsonl").read_bytes() == log


def test_a_damaged_newer_checkpoint_is_not_among_those_that_are_kept(tmp_path):
    checkpoints = Run(tmp_path).checkpoints
    for images in (500, 1000, 2000):
        checkpoints.save(images, {"a": b"%d" % images})
    (checkpoints.folders()[-1] / "a").write_bytes(b"damaged")
    newest, problems = checkpoints.newest()
    assert newest.images == 1000 and len(problems) == 1
    for images, there in ((1500, [1000, 1500]), (1700, [1500, 1700])):
        checkpoints.save(images, {"a": b"%d" % images})
        assert [int(p.name) for p in checkpoints.folders()] == there
    assert checkpoints.newest()[0].images == 1700 and not checkpoints.newest()[1]


STATES = {
    "empty": lambda state: state.clear(),
    "a runtime that is a number": lambda state: state.update(runtime=3),
    "a runtime without its machine": lambda state: state["runtime"].pop("machine"),
    "a runtime of another precision": lambda state: state["runtime"].update(dtype="save"),
    "no data": lambda state: state.pop("data"),
    "images in words": lambda state: state.update(images="many"),
    "images of 400 digits": lambda state: state.update(images=int("9" * 400)),
    "seconds that are none": lambda state: state.update(seconds=math.nan),
    "no processes": lambda state: state.update(processes=None),
}


@pytest.fixture(scope="module")
def short(dataset, tmp_path_factory):
    """A run of two updates."""
    run = begin(tmp_path_factory.mktemp("short") / "run", tiny_recipe())
    list(train(dataset, run, images=16, runtime=Runtime()))
    return run


@pytest.mark.parametrize("given", [None, Runtime()], ids=["its runtime", "another"])
@pytest.mark.parametrize("change", STATES)
def test_a_malformed_state_of_a_checkpoint_is_one_sentence(dataset, short, tmp_path, change, given):
    run = Run(shutil.copytree(short.path, tmp_path / "run"))
    newest, _ = run.checkpoints.newest()
    state = newest.state
    STATES[change](state)
    write_folder(newest.path, {**newest.files, "state.json": pack_json(state)})
    with pytest.raises(Damaged) as told:
        list(train(dataset, run, images=32, runtime=given))
    assert str(newest.path) in told.value.message and "\n" not in told.value.message


def without_statistics(files):
    del files["statistics.safetensors"]


def statistics_of_another_size(files):
    files["statistics.safetensors"] = pack_tensors({"mean": torch.zeros(3, 8, 8), "factor": torch.eye(3)})


def moments_of_another_shape(files):
    moments = unpack_tensors(files["optimizer.safetensors"])
    name = next(name for name, value in moments.items() if value.ndim)
    files["optimizer.safetensors"] = pack_tensors({**moments, name: torch.zeros(7)})


@pytest.mark.parametrize("change", [without_statistics, statistics_of_another_size, moments_of_another_shape])
def test_a_malformed_file_of_a_checkpoint_is_one_sentence(dataset, short, tmp_path, change):
    run = Run(shutil.copytree(short.path, tmp_path / "run"))
    newest, _ = run.checkpoints.newest()
    files = dict(newest.files)
    change(files)
    write_folder(newest.path, files)
    log = (run.path / "log.jsonl").read_bytes()
    with pytest.raises(AlphabarError) as told:
        list(train(dataset, run, images=32, runtime=Runtime()))
    assert str(run.path) in told.value.message and "\n" not in told.value.message
    assert (run.path / "log.jsonl").read_bytes() == log
