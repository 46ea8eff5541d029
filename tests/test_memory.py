"""Batches fit into the memory that is free, and where they do not, they are halved to the same results."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from alphabar import memory
from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.errors import AlphabarError
from alphabar.memory import fitting_batch, free_memory, halving, is_out_of_memory
from alphabar.metrics.features import Features, extract
from alphabar.progress import last
from alphabar.sampling import sample as sampling
from alphabar.sampling.outputs import ReverseProcessRecorder
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from refusals import refused
from test_sampling import NETWORK, made

FULL = torch.OutOfMemoryError("out of memory")


def limited(most, error=FULL):
    """Work that gives its positions one by one, and fails in the middle of more than ``most``."""

    def work(positions):
        for i in positions:
            if len(positions) > most and i == positions[-1]:
                raise error
            yield i

    return work


@pytest.mark.parametrize(("most", "batch"), [(9, 4), (3, 10), (1, 8), (2, 5)])
def test_halved_parts_cover_every_position_in_order(most, batch):
    whole = {}
    for part, i in halving(range(5, 16), batch, limited(most)):
        whole.setdefault(part, []).append(i)
    finished = [i for part, found in whole.items() if found == list(part) for i in found]
    assert finished == list(range(5, 16))
    lengths = [len(part) for part in whole]
    assert lengths[0] == min(batch, 11) and lengths[-1] <= most


def test_one_position_that_does_not_fit_is_told_and_other_errors_are_left_alone():
    def one_is_too_many(positions):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        yield

    with refused("runtime.out_of_memory", AlphabarError):
        list(halving(range(4), 4, one_is_too_many))
    with pytest.raises(RuntimeError, match="shape"):
        list(halving(range(4), 4, limited(1, RuntimeError("shape"))))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("out of memory"))


def test_a_batch_is_estimated_from_the_tensors_that_one_more_signal_takes(monkeypatch):
    layer = nn.Linear(1000, 5000)

    def run(n):  # 24,000 bytes for each signal besides 4 MB that all share
        with torch.no_grad():
            shared = torch.zeros(1000, 1000)
            layer(torch.zeros(n, 1000) @ shared)

    each = memory.SCRATCH * 4 * (2 * 1000 + 5000)
    for fit in (1, 7, 50, 1000):
        monkeypatch.setattr(memory, "free_memory", lambda device, fit=fit: (fit + 0.5) * each / memory.USED)
        found = fitting_batch(64, (1000,), "cpu", run)
        assert min(fit, 64) <= found <= min(64, 1.5 * fit + 1), fit  # what is freed in between is not held
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    assert fitting_batch(64, (1000,), "cpu", run) == 1
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**50)
    assert fitting_batch(64, (1000,), "cpu", lambda n: pytest.fail("memory is plenty")) == 64


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    for name, text in (("max", "5000000"), ("current", "4000000"), ("stat", "anon 1\ninactive_file 200000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory("cpu") == 1_200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory("cpu") > 1_200_000


@pytest.fixture
def cramped(monkeypatch):
    """Sampling in which the denoiser runs out of memory above three samples, and the batches it got."""
    batches = []
    bind = sampling.bind_settings

    def bound(model, settings):
        plain = bind(model, settings)

        def denoise(x, t, cond):
            batches.append(len(x))
            if len(x) > 3 and len(batches) % 2 == 0:  # in the middle of a sampling
                raise FULL
            return plain.denoiser(x, t, cond)

        return replace(plain, denoiser=FunctionDenoiser(plain.denoiser.schedule, denoise))

    monkeypatch.setattr(sampling, "bind_settings", bound)
    return batches


def test_samples_are_the_same_where_memory_does_not_suffice_for_the_batch(cramped, monkeypatch):
    model = made("lean", *NETWORK)
    settings = sampling_settings(model, steps=4)
    recorder = ReverseProcessRecorder(model, 4)
    found = last(map(recorder.record, sample(model, 10, settings, batch=10)))
    assert {10, 5, 3} <= set(cramped)
    monkeypatch.undo()
    plain = ReverseProcessRecorder(model, 4)
    expected = last(map(plain.record, sample(model, 10, settings, batch=10)))
    assert (found.int() - expected.int()).abs().max() <= 1  # the rounding of other kernels
    for a, b in zip(recorder.columns, plain.columns, strict=True):
        assert a.shape == b.shape and (a.int() - b.int()).abs().max() <= 1


def test_features_are_the_same_where_memory_does_not_suffice_for_the_batch():
    class Cramped:
        name, dim, protocol = "cramped", 3, "mean colors"

        def __call__(self, pictures):
            if len(pictures) > 20:
                raise FULL
            return Features(pictures.float().mean(dim=(1, 2)), None)

    pictures = torch.randint(0, 256, (90, 8, 8, 3), dtype=torch.uint8)
    found = last(extract(Cramped(), pictures)).features
    assert torch.equal(found, pictures.float().mean(dim=(1, 2)))


@pytest.mark.slow
def test_a_real_allocation_that_fails_is_halved():
    """With an address space that holds a few batches of the layer's output, but not of the batch given."""
    script = """
import resource, torch
from pathlib import Path
from alphabar.memory import halving
torch.set_num_threads(1)
layer = torch.nn.Conv2d(1, 64, 3, padding=1)
layer(torch.zeros(1, 1, 256, 256))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
parts = []
def work(part):
    with torch.no_grad():
        yield layer(torch.zeros(len(part), 1, 256, 256)).sum()
for part, _ in halving(range(100), 64, work):
    parts.append(len(part))
print(parts)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    parts = eval(done.stdout)
    assert sum(parts) == 100 and max(parts) <= 16
