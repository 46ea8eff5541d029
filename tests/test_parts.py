"""Work in parts: shared, kept, gone on with; and rows that are read when they are needed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from alphabar import parts as parts_module
from alphabar.errors import AlphabarError
from alphabar.files import WRITING
from alphabar.metrics.features import Features, extract
from alphabar.parts import Parts, Rows
from alphabar.progress import Progress, last
from alphabar.runtime import Runtime
from alphabar.sampling.outputs import sampling_metadata
from alphabar.sampling.sample_folder import SampleFolder, sample_into
from alphabar.sampling.settings import sampling_settings
from test_compare import make_run
from test_sample_folder import contents
from test_sampling import NETWORK, made

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]


def test_rows_are_indexed_like_a_tensor():
    every = torch.arange(60).reshape(20, 3)
    rows = Rows.of(every.numpy())
    for index in (4, -1, slice(3, 9), slice(None, None, -2), np.array([7, 2, 2]), torch.tensor([5, 0]), [1]):
        expected = every.numpy()[index]
        assert torch.equal(rows[index], torch.as_tensor(expected.copy()))
    assert rows.shape == (20, 3) and rows.dtype == torch.int64 and len(list(rows)) == 20
    chosen = rows.map(lambda x: -x).chosen(np.array([3, 1]))
    assert torch.equal(torch.cat(list(chosen.split(1))), -every[[3, 1]])


def squares(made):
    """Work that gives the squares of its rows, and notes which it was asked for."""

    def make(part):
        made.append(part.start)
        yield Progress("squares", 1, 1, {"squares": torch.tensor([[i * i] for i in part])})

    return make


@pytest.mark.parametrize("folder", [True, False])
def test_parts_are_kept_and_damaged_ones_are_made_again(tmp_path, folder):
    place, made = tmp_path / "parts" if folder else None, []
    parts = Parts(place, 10, 4)
    assert [record.done for record in parts.fill(squares(made))] == [4, 8, 10]
    assert parts.all("squares").flatten().tolist() == [i * i for i in range(10)]
    assert parts.rows("squares")[[9, 0, 5]].flatten().tolist() == [81, 0, 25]
    if folder:
        file = place / "000000004-4" / parts_module.FILE
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        again = Parts(place, 10, 4)
        list(again.fill(squares(made)))
        assert made == [0, 4, 8, 4] and again.all("squares")[7] == 49


def as_process(monkeypatch, rank):
    """Of two processes that share work, this one is the one of that rank; it waits for nobody."""
    monkeypatch.setattr(parts_module, "share", lambda missing: missing[rank::2])


def test_what_two_processes_share_is_what_one_makes(tmp_path, monkeypatch):
    model = made("lean", *NETWORK)
    settings = sampling_settings(model, steps=2)

    def fill(out):
        folder = SampleFolder(out, model.codec, sampling_metadata(model, settings, "tiny"), 70)
        list(sample_into(folder, model, 70, [settings]))

    fill(tmp_path / "one")
    with pytest.raises(AlphabarError):  # the overview takes the samples of the other process too
        with monkeypatch.context() as patched:
            as_process(patched, 1)
            fill(tmp_path / "two")
    half = {path.name for path in (tmp_path / "two").glob("*.png")}
    assert half == {f"{i:06d}.png" for i in [*range(16, 32), *range(48, 64)]}
    fill(tmp_path / "two")  # the rest
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_one_of_several_processes_that_cannot_write_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    parts = Parts(tmp_path / "file" / "parts", 4, 2)
    list(parts.fill(squares([])))  # one alone holds them
    assert parts.all("squares").flatten().tolist() == [0, 1, 4, 9]
    monkeypatch.setattr(Runtime, "world_size", property(lambda self: 2))
    monkeypatch.setattr(parts_module, "wait_for_others", lambda: None)
    with pytest.raises(AlphabarError) as failed:
        as_process(monkeypatch, 0)
        list(Parts(tmp_path / "file" / "parts", 4, 2).fill(squares([])))
    assert failed.value.of_one_process


def test_features_that_were_stopped_go_on(tmp_path):
    class Counting:
        name, dim, protocol = "counting", 3, "mean colors"
        seen, most = 0, 300

        def __call__(self, pictures):
            if self.seen >= self.most:
                raise KeyboardInterrupt
            self.seen += len(pictures)
            return Features(pictures.float().mean(dim=(1, 2)), None)

    extractor = Counting()
    pictures = torch.randint(0, 256, (500, 4, 4, 3), dtype=torch.uint8)
    with pytest.raises(KeyboardInterrupt):
        last(extract(extractor, pictures, cache=tmp_path))
    extractor.most = 10_000
    found = last(extract(extractor, Rows.of(pictures), cache=tmp_path)).features
    assert torch.equal(found, pictures.float().mean(dim=(1, 2)))
    assert extractor.seen < 500 + 128 and [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_command_that_cannot_share_says_so_once(call, monkeypatch, rank):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", rank), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value)
    code, out, err = call("inspect", "toycars:20")
    assert code == 2 and not out
    assert ("inspect does its work in one process, and torchrun started 2" in err) == (rank == "0")
    code, out, err = call("sample", "nowhere", "--out", "out")
    assert code == 1 or code == 2
    assert bool(err) == (rank == "0")


def command(*arguments, cache, torchrun=False):
    start = TORCHRUN if torchrun else [sys.executable, "-m"]
    environment = os.environ | {
        "ALPHABAR_CACHE": str(cache), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    return [*start, "alphabar.cli", *map(str, arguments)], environment


def done(*arguments, **how):
    line, environment = command(*arguments, **how)
    ended = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.slow
def test_two_processes_sample_and_evaluate_as_one(tmp_path):
    run = make_run(tmp_path / "run", "data.held_out=0.3")
    sampling = ("sample", run, "-n", 90, "--steps", 3, "--out")
    done(*sampling, tmp_path / "one", cache=tmp_path / "a")
    both = done(*sampling, tmp_path / "two", cache=tmp_path / "b", torchrun=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert both.stderr.count("90 pictures are in") == 1
    evaluating = ["evaluate", run, "--against", "toycars:200", "-n", 300, "--steps", 3]
    evaluating += ["--features", "lite0_96", "--json"]
    found = []
    for name, torchrun in (("a", False), ("b", True)):
        ended = done(*evaluating, cache=tmp_path / name, torchrun=torchrun)
        (line,) = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        found.append(json.loads(line))
        for own in ("seconds_per_sample", "machine", "when"):
            found[-1].pop(own)
        assert not list((tmp_path / name / "samples").iterdir())
    assert found[0] == found[1]
    assert len(json.loads((run / "evaluation.json").read_text())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "launcher"])
def test_samples_go_on_after_a_kill(tmp_path, victim):
    run = make_run(tmp_path / "run", "data.held_out=0.3")
    sampling = ("sample", run, "-n", 400, "--steps", 40, "--out")
    done(*sampling, tmp_path / "straight", cache=tmp_path / "cache")
    line, environment = command(*sampling, tmp_path / "out", cache=tmp_path / "cache", torchrun=True)
    child = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    while not list((tmp_path / "out").glob("0*.png")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    if victim == "launcher":
        os.killpg(child.pid, signal.SIGTERM)
    else:
        listed = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True)
        os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
    err = child.communicate()[1].decode()
    assert child.returncode != 0
    kept = list((tmp_path / "out").glob("0*.png"))
    assert 0 < len(kept) < 400, err
    done(*sampling, tmp_path / "out", cache=tmp_path / "cache", torchrun=True)
    for leftover in (tmp_path / "out").glob(f"{WRITING}*"):
        leftover.unlink()
    assert contents(tmp_path / "straight") == contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
