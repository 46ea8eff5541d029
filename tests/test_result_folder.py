"""Answers, edits, interpolations and degraded pictures: what is stopped anywhere goes on to the same bits."""

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.progress import last
from alphabar.restoration import restoration_folder, task
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.restoration_folder import RestorationFolder, restore_into
from alphabar.restoration.settings import restoration_settings
from alphabar.restoration.task import DegradedFolder, degrade_into, read_task
from alphabar.result_folder import ResultFolder
from alphabar.sampling import edit, interpolate
from alphabar.sampling.edit import edit_into
from alphabar.sampling.interpolate import interpolate_into
from alphabar.sampling.sample_folder import SampleFolder
from alphabar.sampling.settings import deterministic, sampling_settings
from delivered import deliver
from refusals import refused
from restoration_models import untrained


def test_another_precision_is_named_by_its_option(tmp_path):
    for runtime in ({"precision": "bf16"}, {"precision": "fp32"}):
        folder = ResultFolder(tmp_path / "out", "about.json", {"runtime": runtime}, ["a"])
        if runtime["precision"] == "bf16":
            folder.begin()
    with refused("sampling.other_samples", AlphabarError, keys="--precision"):
        folder.begin()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("stopped"))


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of 16 × 16 pixels in a folder, and one of 12 × 40."""
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, size in (("in/a", (16, 16)), ("in/b", (16, 16)), ("in/c", (16, 16)), ("wide", (12, 40))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def restoring(model, pictures, out, *, file="in/a.png", n=3, seed=0):
    found = read_task(pictures / file, parse_degradation("random:0.5"))
    settings = restoration_settings(model, found.operator, found.sigma_y, steps=2, seed=seed)
    folder = RestorationFolder(out, found, settings.to_dict(), n)
    return restore_into(folder, model, settings), folder


def tiling(model, pictures, out, **other):
    return restoring(model, pictures, out, file="wide.png", **other)


def editing(model, pictures, out, *, n=3, seed=0):
    settings = deterministic(model, sampling_settings(model, steps=3, seed=seed))
    picture = model.codec.read((pictures / "in/a.png").read_bytes(), "crop").item
    folder = SampleFolder(out, model.codec, settings.to_dict(), n)
    item = torch.from_numpy(picture.copy())
    return edit_into(folder, model, item, settings, strength=0.7, invert=False), folder


def interpolating(model, pictures, out, *, n=3, seed=0):
    settings = deterministic(model, sampling_settings(model, steps=2, seed=seed))
    folder = SampleFolder(out, model.codec, settings.to_dict(), 2 * n)
    return interpolate_into(folder, model, settings, rows=n, columns=2), folder


def degrading(model, pictures, out, *, n=3, seed=0):
    if n > 3:
        Image.new("RGB", (16, 16)).save(pictures / "in/d.png")
    folder = DegradedFolder(out, pictures / "in", parse_degradation("noise:0.2"), seed)
    return degrade_into(folder), folder


WORK = [restoring, tiling, editing, interpolating, degrading]


@pytest.fixture
def small_parts(monkeypatch):
    """Two results at a time."""
    for module in (edit, interpolate):
        monkeypatch.setattr(module, "batch_size", lambda model: 2)
    real = restoration_folder.workload
    monkeypatch.setattr(restoration_folder, "workload", lambda *a, **k: real(*a, **k)._replace(together=2))


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("work", WORK)
def test_work_that_is_stopped_anywhere_goes_on_to_the_same_bits(model, pictures, small_parts, work):
    records, folder = work(model, pictures, pictures / "straight")
    kept = [folder.kept() for _ in records]
    straight = contents(folder.path)
    assert kept[0] < kept[-1] == folder.n and len(set(kept)) > 1
    for stop in range(1, len(kept)):
        records, folder = work(model, pictures, pictures / f"stopped{stop}")
        for _ in range(stop):
            next(records)
        records.close()
        assert folder.kept() == kept[stop - 1] and folder.path.exists() == (folder.kept() > 0)
        before = {
            file: file.stat().st_mtime_ns for file in map(folder.file, range(folder.n)) if file.is_file()
        }
        last(work(model, pictures, folder.path)[0])
        assert contents(folder.path) == straight
        assert all(file.stat().st_mtime_ns == then for file, then in before.items())


@pytest.mark.parametrize("work", [restoring, tiling, editing, interpolating])
def test_parts_make_what_all_at_once_make(model, pictures, request, work):
    made = []
    for name in ("once", "parts"):
        if name == "parts":
            request.getfixturevalue("small_parts")
        records, folder = work(model, pictures, pictures / name)
        last(records)
        made.append(torch.stack([folder.read(i).float() for i in range(folder.n)]))
    once, parts = made
    assert (once - parts).abs().max() <= (1 if once.max() > 1 else 0.01)
    assert all((parts[i] - parts[i + 1]).abs().max() > 0.02 for i in range(len(parts) - 1))


@pytest.mark.parametrize("other", [{"seed": 1}, {"n": 4}])
@pytest.mark.parametrize("work", WORK)
def test_a_folder_of_other_settings_is_refused_and_left_alone(model, pictures, work, other):
    last(work(model, pictures, pictures / "out")[0])
    before = contents(pictures / "out")
    with refused("sampling.other_samples", AlphabarError, path=pictures / "out"):
        last(work(model, pictures, pictures / "out", **other)[0])
    assert contents(pictures / "out") == before


def test_degraded_pictures_inside_the_source_are_none_to_degrade(pictures):
    def work():
        return degrade_into(DegradedFolder(pictures / "in/out", pictures / "in", parse_degradation("blur:1")))

    records = work()
    next(records), records.close()
    assert last(work()) == 3 and len(list((pictures / "in/out").glob("*.png"))) == 3


def test_a_picture_with_the_longest_name_is_degraded(pictures):
    name = "ñ" * 125 + ".png"
    (pictures / "in/a.png").rename(pictures / "in" / name)
    assert (
        last(degrade_into(DegradedFolder(pictures / "out", pictures / "in", parse_degradation("blur:1"))))
        == 3
    )
    assert (pictures / "out" / name).is_file()


COMMANDS = {
    "inpaint": ["{model}", "{in}/a.png", "--mask", "box", "-n", 2, "--steps", 2],
    "upscale": ["{model}", "{in}/a.png", "--factor", 2, "-n", 2, "--steps", 2],
    "restore": ["{model}", "{in}/a.png", "--degradation", "blur:1", "-n", 2, "--steps", 2],
    "edit": ["{model}", "{in}/a.png", "-n", 2, "--steps", 3],
    "interpolate": ["{model}", "--rows", 1, "--columns", 2, "--steps", 2],
    "degrade": ["{in}", "--degradation", "noise:0.1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stopped_command_says_what_is_kept_and_goes_on(model, pictures, call, monkeypatch, command):
    """The signal comes at the second result."""
    values = {"model": model.path, "in": pictures / "in"}
    arguments = [a.format(**values) if isinstance(a, str) else a for a in COMMANDS[command]]
    assert call(command, *arguments, "--out", pictures / "straight")[0] == 0
    number = {"upscale": signal.SIGHUP}.get(command, signal.SIGTERM)
    target, name = {"degrade": (task, "degrade"), "edit": (SampleFolder, "write"), "interpolate": (
        SampleFolder, "write")}.get(command, (RestorationFolder, "write"))  # fmt: skip
    real, calls = getattr(target, name), []

    def stopped(*args, **given):
        calls.append(args)
        if len(calls) == 2:
            deliver(number)
        return real(*args, **given)

    monkeypatch.setattr(target, name, stopped)
    out = pictures / "out"
    code, stdout, err = call(command, *arguments, "--out", out, "--json")
    assert code == 128 + number and not stdout
    n = 3 if command == "degrade" else 2
    assert err.splitlines()[-1] == f"stopped: 1 of {n} files are in {out}; the same command goes on."
    assert not list(pictures.rglob(".writing*"))
    monkeypatch.setattr(target, name, real)
    code, _, err = call(command, *arguments, "--seed", 5, "--out", out)
    assert code == 1 and "other settings (seed)" in err.splitlines()[-1]
    code, stdout, err = call(command, *arguments, "--out", out, "--json")
    assert code == 0 and json.loads(stdout.splitlines()[-1])["out"] == str(out)
    assert contents(out) == contents(pictures / "straight")


def test_other_files_under_the_same_names_are_other_settings(model, pictures, call):
    mask = np.zeros((16, 16), np.uint8)
    mask[:4] = 255
    command = ["inpaint", model.path, pictures / "in/a.png", "--mask", pictures / "mask.png", "--steps", 2]
    command += ["-n", 1, "--out", pictures / "out"]
    Image.fromarray(mask).save(pictures / "mask.png")
    assert call(*command)[0] == 0
    Image.fromarray(mask.T.copy()).save(pictures / "mask.png")
    code, _, err = call(*command)
    assert code == 1 and "other settings (contents)" in err
