"""A training that does not fit into the memory is refused before it begins, with what would fit."""

import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from alphabar.errors import UsageError
from alphabar.messages import message
from alphabar.recipes.derive import first_stage
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors
from alphabar.training.budget import plan
from alphabar.training.fitting import check_memory
from alphabar.training.model_sizes import size_of
from refusals import refused
from test_launch import TINY, launched
from test_plan import LEAN, TWO_CORES

SMALL = with_settings(named_recipe("lean"), [*TINY, "batch=64", "data.channels=3"])
SIZE = size_of(SMALL)


def free(monkeypatch, count):
    monkeypatch.setattr("alphabar.training.fitting.free_memory", lambda device: count)


def test_a_training_that_cannot_fit_is_refused_before_anything_is_written(
    picture_folder, tmp_path, monkeypatch
):
    free(monkeypatch, 2 * SIZE.memory(8))
    options = {"run": tmp_path / "run", "recipe": "lean", "settings": [*TINY, "batch=64"]}
    fitting = message("training.fits_pieces", pieces=8)
    with refused("training.too_little_memory", remedy=fitting):
        launched(picture_folder, **options)
    assert not (tmp_path / "run").exists()
    launched(picture_folder, **options | {"settings": [*TINY, "batch=64", "accumulate=8"]})


def test_what_may_not_be_enough_is_only_told(monkeypatch):
    free(monkeypatch, 2 * SIZE.memory(64))
    assert check_memory(SMALL, Runtime()) is None
    for count, runtime in ((1.5 * SIZE.memory(64), Runtime()), (0.9 * SIZE.memory(64), None)):
        free(monkeypatch, count)
        assert check_memory(SMALL, runtime).identifier == "training.little_memory"


def test_recomputing_is_advised_before_a_smaller_size_and_only_to_a_new_run(monkeypatch):
    free(monkeypatch, 2 * SIZE.memory(1, recompute=True))
    fitting = message("training.fits_recomputed", pieces=64)
    with refused("training.too_little_memory", remedy=fitting):
        check_memory(SMALL, Runtime())
    with refused("training.too_little_memory", remedy=message("training.fits_nothing")):
        check_memory(SMALL, Runtime(), new=False)


def test_for_the_autoencoder_of_a_latent_run_a_smaller_size_is_advised(monkeypatch):
    def sized(side):
        return first_stage(with_settings(named_recipe("latent"), ["data.channels=3", f"data.size={side}"]))

    free(monkeypatch, 2 * size_of(sized(64)).memory(4))
    with refused("training.too_little_memory", remedy=message("training.fits_size", size=64)):
        check_memory(sized(128), Runtime(), smaller=sized, first_stage=True)


def test_the_planner_says_what_would_fit_in_place_of_ones_own_network(monkeypatch):
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1,))
    own = with_settings(LEAN, ["network.widths=[256,512,1024]"])
    tight = replace(TWO_CORES, memory=size_of(own).memory(1, recompute=True))
    with pytest.raises(UsageError, match=r"need|take") as told:
        plan(tight, own, 8000, 7200.0, own_size=True)
    remedy = told.value.message.values["remedy"]
    assert remedy.identifier == "training.fits_widths"
    fitting = with_settings(LEAN, [f"network.widths={remedy.values['widths']}"])
    assert (
        plan(tight, fitting, 8000, 7200.0, own_size=True).recipe.network["widths"]
        == size_of(fitting).network["widths"]
    )


def test_packing_where_memory_runs_out_is_an_error_of_memory(monkeypatch):
    class PanicException(BaseException):
        """As Rust's, no Exception."""

    def panics(tensors):
        raise PanicException("PyObject pointer is null")

    monkeypatch.setattr(safetensors.torch, "save", panics)
    with pytest.raises(MemoryError):
        pack_tensors({"a": torch.zeros(2)})


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_packing_under_a_limit_of_memory_does_not_end_the_process():
    code = (
        "import resource, torch\n"
        "from pathlib import Path\n"
        "from alphabar.tensor_files import pack_tensors\n"
        "tensor = torch.zeros(50_000_000)\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000,) * 2)\n"
        "try: pack_tensors({'a': tensor})\n"
        "except MemoryError: print('told')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "told\n", done.stderr
