import json
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from alphabar.diffusion.loss import loss
from alphabar.diffusion.random import Noise
from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.checkpoints import CheckpointFolder
from alphabar.runs.ema import EmaSnapshots
from alphabar.runs.log import RunLog
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.batches import BatchLoader, TrainingBatches
from alphabar.training.loop import begin, train
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.optimizers import learning_rate_at
from alphabar.training.writer import TensorBoardEvents
from refusals import refused
from training_child import tiny_dataset, tiny_recipe

CHILD = Path(__file__).with_name("training_child.py")
WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def run_all(dataset, run, **options):
    return list(train(dataset, run, runtime=Runtime(), **options))


def batches_of(dataset, recipe) -> TrainingBatches:
    index, _ = dataset.split(recipe.data.held_out)
    return TrainingBatches(dataset, index, recipe, build_denoiser(recipe).schedule)


def final_weights(run: Run, images: int) -> dict[str, bytes]:
    checkpoint, problems = run.checkpoints.newest()
    assert checkpoint is not None and checkpoint.images == images and not problems
    return {name: checkpoint.files[name] for name in WEIGHTS}


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return tiny_dataset(picture_folder)


@pytest.fixture(scope="module")
def straight(dataset, tmp_path_factory):
    """An uninterrupted training of 96 images."""
    run = begin(tmp_path_factory.mktemp("runs") / "straight", tiny_recipe())
    records = run_all(dataset, run, images=96)
    return run, records


def test_the_loss_falls(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe("network.dropout=0", "optimizer.learning_rate=2e-3"))
    losses = [r.loss for r in run_all(dataset, run, images=1600) if r.loss is not None]
    assert np.mean(losses[-30:]) < 0.5 * np.mean(losses[:5])


def test_a_run_folder_is_complete(straight):
    run, records = straight
    assert records[-1].result.images == records[-1].images == 96
    names = {p.name for p in run.path.iterdir()}
    assert {"recipe.toml", "environment.json", "log.jsonl", "samples", "checkpoints", "model"} <= names
    assert (run.path / "samples" / "000000096.png").is_file()
    model = load_model(run.path)
    exported = load_model(run.path / "model")
    assert model.images == exported.images == 96
    for a, b in zip(model.denoiser.parameters(), exported.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_resume_equals_never_having_stopped(dataset, straight, tmp_path, stop_after):
    run = begin(tmp_path / "run", tiny_recipe())
    records = train(dataset, run, images=96, runtime=Runtime())
    updates = 0
    for record in records:
        updates += record.loss is not None
        if updates == stop_after:
            break
    records.close()
    assert Run(run.path).checkpoints.newest()[0].images == 8 * stop_after
    run_all(dataset, run, images=96)
    assert final_weights(run, 96) == final_weights(straight[0], 96)


def test_a_longer_training_goes_on(dataset, straight, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    run_all(dataset, run, images=40)
    run_all(dataset, run, images=96)
    assert final_weights(run, 96) == final_weights(straight[0], 96)
    again = run_all(dataset, run, images=96)
    assert again[-1].result.reason.identifier == "training.already_trained"


def test_stop_event_saves_and_leaves(dataset, tmp_path):
    run, stop = begin(tmp_path / "run", tiny_recipe()), threading.Event()
    records = []
    for record in train(dataset, run, images=96, runtime=Runtime(), stop=stop):
        records.append(record)
        if record.loss is not None:
            stop.set()
    assert records[-1].result.reason.identifier == "training.stopped" and records[-1].images == 8
    assert run.checkpoints.newest()[0].images == 8


def test_a_flipped_byte_falls_back_and_is_told(dataset, straight, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    run_all(dataset, run, images=40)
    run_all(dataset, run, images=64)
    newest = run.checkpoints.folders()[-1] / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    records = run_all(dataset, run, images=96)
    notes = [r.message for r in records if r.message]
    assert any("000000064" in note and "damaged" in note for note in notes)
    assert any("continues at 40 images" in note for note in notes)
    assert final_weights(run, 96) == final_weights(straight[0], 96)


def test_all_checkpoints_damaged_is_an_error_not_a_new_beginning(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    run_all(dataset, run, images=16)
    for folder in run.checkpoints.folders():
        (folder / "model.safetensors").write_bytes(b"")
    trains, loads = partial(run_all, dataset, run, images=32), partial(load_model, run.path)
    for reads in (trains, loads):
        with refused("runs.only_the_model", AlphabarError, path=run.path, model=run.model_folder):
            reads()
    assert load_model(run.model_folder).images == 16
    (run.model_folder / "model.safetensors").write_bytes(b"")
    with refused("training.all_damaged", AlphabarError, path=run.path):
        trains()
    with refused("runs.all_damaged", AlphabarError, path=run.path):
        loads()


def test_old_checkpoints_go_but_one(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    there = []
    for _ in train(dataset, run, images=48, runtime=Runtime(), checkpoint_every=0):
        there.append([int(p.name) for p in run.checkpoints.folders()])
    assert [8] in there and [8, 16] in there and [16, 24] in there and there[-1] == [40, 48]


def test_a_full_disk_keeps_the_checkpoint_and_the_training(dataset, tmp_path, monkeypatch):
    run = begin(tmp_path / "run", tiny_recipe())
    run_all(dataset, run, images=16)
    before = final_weights(run, 16)

    def full(*args, **values):
        raise AlphabarError("no space left; what was saved before is intact")

    monkeypatch.setattr(CheckpointFolder, "save", full)
    seen = []
    with pytest.raises(AlphabarError, match="no space left"):
        for record in train(dataset, run, images=32, runtime=Runtime(), checkpoint_every=0):
            seen.append(record)
    assert sum(r.loss is not None for r in seen) == 2
    assert any("training continues" in (r.message or "") for r in seen)
    assert final_weights(run, 16) == before


@pytest.mark.parametrize(
    "broken",
    [
        (RunLog, "append", AlphabarError("no space left")),
        (EmaSnapshots, "save", AlphabarError("no space left")),
        (TrainingMonitor, "samples", RuntimeError("no space left")),
        (TrainingMonitor, "_write_grid", AlphabarError("no space left")),
    ],
)
def test_whatever_fails_after_the_last_update_the_model_is_saved(dataset, tmp_path, monkeypatch, broken):
    owner, name, error = broken

    def fail(*args, **values):
        raise error

    monkeypatch.setattr(owner, name, fail)
    run = begin(tmp_path / "run", tiny_recipe("ema.snapshots=2"))
    records = run_all(dataset, run, images=16)
    notes = [r.message for r in records if r.message]
    failures = [note for note in notes if note.identifier == "training.finishing_failed"]
    assert failures and all("no space left" in note for note in failures)
    assert records[-1].result.reason.identifier == "training.finished"
    assert run.checkpoints.newest()[0].images == load_model(run.path / "model").images == 16


def test_a_monitor_that_always_fails_delays_no_checkpoint(dataset, tmp_path, monkeypatch):
    measured = []

    def fail(*args, **values):
        measured.append(1)
        raise AlphabarError("cannot measure")

    monkeypatch.setattr(TrainingMonitor, "samples", fail)
    run = begin(tmp_path / "run", tiny_recipe("monitor.share=0.99"))
    saved = []
    for record in train(dataset, run, images=40, runtime=Runtime(), checkpoint_every=0):
        saved.append(len(run.checkpoints.folders()))
        if record.message and record.message.identifier == "training.measuring_failed":
            assert run.checkpoints.newest()[0].images == record.images
    assert measured and 1 in saved[:4]


@pytest.mark.parametrize(("pictures", "distance"), [(3, 128), (40, 2)])
def test_a_quick_distance_of_too_few_pictures_is_left_out(picture_folder, tmp_path, pictures, distance):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(picture_folder.iterdir())[:pictures]:
        shutil.copy(path, few)
    run = begin(tmp_path / "run", tiny_recipe("batch=16", f"monitor.distance={distance}"))
    records = run_all(tiny_dataset(few), run, images=64)
    assert run.checkpoints.newest()[0].images == 64
    (note,) = [r.message for r in records if r.message]
    assert note.identifier == "training.few_for_distance" and "at least 4" in note
    assert not any(r["kind"] == "distance" for r in run.log.records())
    assert (run.path / "samples" / "000000064.png").is_file()


def test_a_non_finite_loss_never_reaches_the_weights(dataset, tmp_path, monkeypatch):
    run = begin(tmp_path / "run", tiny_recipe("network=tutorial_unet", "network.widths=[8,16]"))
    real, calls = loss, []

    def sometimes_nan(denoiser, x0, t, eps, **rest):
        calls.append(1)
        x0 = x0 * math.nan if len(calls) == 3 else x0
        return real(denoiser, x0, t, eps, **rest)

    monkeypatch.setattr("alphabar.methods.diffusion.loss", sometimes_nan)
    records = train(dataset, run, images=40, runtime=Runtime(), checkpoint_every=0)
    notes = [r.message for r in records if r.message]
    assert any("not finite" in note for note in notes)
    for _name, value in load_model(run.path).denoiser.network.state_dict().items():
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_refused_update_moves_no_weight_and_no_average(dataset, tmp_path, monkeypatch, kind):
    run = begin(
        tmp_path / "run", tiny_recipe("ema.snapshots=4", "network=tutorial_unet", "network.widths=[8,16]")
    )
    real, calls = loss, []

    def third_is_bad(denoiser, x0, t, eps, **rest):
        calls.append(1)
        losses = real(denoiser, x0, t, eps, **rest)
        if len(calls) == 3:
            weight = next(denoiser.parameters()).sum()
            # The root's slope at zero is infinite.
            losses = losses + (math.nan if kind == "loss" else (weight - weight.detach()).abs().sqrt())
        return losses

    monkeypatch.setattr("alphabar.methods.diffusion.loss", third_is_bad)
    files = {}
    for images in (16, 24, 32):
        list(train(dataset, run, images=images, runtime=Runtime()))
        checkpoint = run.checkpoints.newest()[0]
        files[checkpoint.images] = checkpoint.files
        assert checkpoint.state["bad_steps"] == (images == 24)
    for name in (*WEIGHTS, "averages.safetensors"):
        assert files[16][name] == files[24][name] != files[32][name], name


def test_a_loss_that_stays_non_finite_ends_the_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "alphabar.methods.diffusion.loss",
        lambda d, x0, t, eps, **_: sum(p.sum() for p in d.parameters()) * math.nan * x0[:, 0, 0, 0],
    )
    run = begin(tmp_path / "run", tiny_recipe())
    with pytest.raises(AlphabarError, match="not finite 20 times"):
        run_all(dataset, run, images=800)


def test_a_parameter_without_gradients_is_told_once(dataset, tmp_path, monkeypatch):
    real, calls, dead = loss, [], "middle.0.norm1.bias"

    def cut_off(denoiser, x0, t, eps, **rest):
        calls.append(1)
        parameter = denoiser.network.get_parameter(dead)
        if len(calls) == 1:
            parameter.register_hook(lambda grad: grad * (0 if len(calls) != 30 else 1))
        return real(denoiser, x0, t, eps, **rest)

    monkeypatch.setattr("alphabar.methods.diffusion.loss", cut_off)
    run = begin(tmp_path / "run", tiny_recipe("network.dropout=0"))
    told = [r for r in run_all(dataset, run, images=8 * 200) if "no gradient" in (r.message or "")]
    assert [r.message.identifier for r in told] == ["training.unmoved"]
    assert told[0].message.values["names"] == dead and told[0].images == 8 * 100


def test_a_whole_network_moves(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    records = run_all(dataset, run, images=8 * 55)
    assert not any("no gradient" in (r.message or "") for r in records)


def test_fp16_learns_what_fp32_does(dataset, tmp_path, monkeypatch):
    losses, norms = {}, {}
    clip = torch.nn.utils.clip_grad_norm_
    for dtype in (None, torch.float16):
        seen = norms[dtype] = []
        monkeypatch.setattr(
            torch.nn.utils,
            "clip_grad_norm_",
            lambda p, most, seen=seen: seen.append(clip(p, most)) or seen[-1],
        )
        run = begin(tmp_path / str(dtype), tiny_recipe("network.dropout=0"))
        records = train(dataset, run, images=96, runtime=Runtime(dtype=dtype))
        losses[dtype] = np.array([r.loss for r in records if r.loss is not None])
    np.testing.assert_allclose(losses[torch.float16], losses[None], rtol=0.02)
    np.testing.assert_allclose(norms[torch.float16], norms[None], rtol=0.1)  # of gradients of the true scale


def test_fp16_scales_the_loss_down_where_gradients_leave_its_range(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("alphabar.training.state.LOSS_SCALE", 2.0**40)
    run = begin(tmp_path / "run", tiny_recipe("network.dropout=0"))
    half = Runtime(dtype=torch.float16)
    notes = [r.message for r in train(dataset, run, images=160, runtime=half) if r.message]
    assert not any("not finite" in note for note in notes)
    state = run.checkpoints.newest()[0].state
    assert 1 < state["loss_scale"] < 2.0**40 and state["bad_steps"] == 0
    list(train(dataset, run, images=176, runtime=half))
    assert run.checkpoints.newest()[0].state["loss_scale"] <= state["loss_scale"]  # it goes on from there
    assert all(torch.isfinite(v).all() for v in load_model(run.path).denoiser.network.state_dict().values())


def test_every_epoch_shows_every_picture_once(dataset):
    recipe = tiny_recipe()
    index, _ = dataset.split(recipe.data.held_out)
    feed = batches_of(dataset, recipe)
    m = len(index)
    orders = [feed.items_at(range(e * m, (e + 1) * m)).tolist() for e in range(3)]
    assert all(sorted(order) == index.tolist() for order in orders)
    assert orders[0] != orders[1] != orders[2]
    across = feed.items_at(range(m - 3, m + 5)).tolist()
    assert across == orders[0][-3:] + orders[1][:5]


def test_batches_are_functions_of_the_position(dataset):
    recipe = tiny_recipe()
    index, held_out = dataset.split(recipe.data.held_out)
    assert len(held_out) and not set(index) & set(held_out)
    feed = batches_of(dataset, recipe)
    whole, left, right = (feed.batch(r) for r in (range(8, 16), range(8, 11), range(11, 16)))
    assert whole.cond is left.cond is right.cond is None
    for w, parts in zip(whole[:3], zip(left[:3], right[:3], strict=True), strict=True):
        assert torch.equal(w, torch.cat(parts))
    assert whole.x0.min() >= -1 and whole.x0.max() <= 1
    flipped = Noise(recipe.seed, range(1000), "flip").uniform(0) < 0.5
    assert 0.4 < flipped.double().mean() < 0.6


@pytest.mark.parametrize("threads", [3, 8, 20])
def test_batches_made_ready_in_pieces_are_the_same(dataset, threads):
    batches = batches_of(dataset, tiny_recipe("stratified=true"))
    whole, pieces = (BatchLoader(batches, Runtime(), n).batch(0) for n in (1, threads))
    for a, b in zip(whole[:3], pieces[:3], strict=True):
        assert torch.equal(a, b)


def test_learning_rate_by_images():
    recipe = tiny_recipe("optimizer.decay_from=0.5", "optimizer.learning_rate=1.0")
    rates = [learning_rate_at(recipe, images, images / 800) for images in range(0, 801, 8)]
    assert rates[0] == 0.25 and rates[3] == 1.0 and rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[-1] == 0.0
    # The budget may run out between the look at the clock and the update; a rate that never falls stays.
    assert learning_rate_at(tiny_recipe("optimizer.decay_from=1.0"), 800, 1.0) > 0


def test_a_budget_ends_the_training_over_sittings(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    first = run_all(dataset, run, budget=1.0)[-1].result
    assert 1.0 <= first.seconds < 3.0 and first.images > 0
    again = run_all(dataset, run, budget=1.0)[-1].result
    assert again.images == first.images


def test_two_trainings_in_one_run_are_refused(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    records = train(dataset, run, images=96, runtime=Runtime())
    next(records)
    with pytest.raises(AlphabarError, match="Another process"):
        run_all(dataset, Run(run.path), images=96)
    records.close()


def test_another_recipe_or_other_pictures_are_refused(dataset, straight, tmp_path, picture_folder):
    run, _ = straight
    with pytest.raises(UsageError, match=r"another recipe \(seed: 0 → 1\)"):
        begin(run.path, tiny_recipe("seed=1"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    with pytest.raises(AlphabarError, match="not a run"):
        begin(tmp_path / "full", tiny_recipe())
    from PIL import Image

    other = tmp_path / "other"
    other.mkdir()
    for i in range(20):
        Image.new("RGB", (20, 20), (i * 10, 0, 0)).save(other / f"{i}.png")
    with pytest.raises(AlphabarError, match="not those that"):
        run_all(tiny_dataset(other), run, images=200)


@pytest.mark.parametrize("options", [{"images": 0}, {"budget": 0.0}, {"budget": -1.0}])
def test_nothing_to_do_is_a_mistake(dataset, tmp_path, options):
    with pytest.raises(UsageError, match="more than zero"):
        run_all(dataset, begin(tmp_path / "run", tiny_recipe()), **options)


def test_the_log_is_rewound_on_resume(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    run_all(dataset, run, images=16)
    before = run.log.records()
    run.log.append("train", 1000, loss=1.0)
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"kind": "trai')
    run_all(dataset, run, images=32)
    after = run.log.records()
    assert before and after[: len(before)] == before
    assert {r["images"] for r in after if r["kind"] == "train"} == {16, 32}
    for line in (run.path / "log.jsonl").read_text().splitlines():
        json.loads(line)


def start_child(picture_folder, run, images, *rest):
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(picture_folder), str(run), str(images), *map(str, rest)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_at_random_moments(
    picture_folder, run: Path, images: int, kills: int, in_save: int, seed: int
) -> int:
    """Start the child again and again, killing it with SIGKILL; the last ``in_save`` kills hit a save.

    Returns how many kills really found a half-written checkpoint.
    """
    rng = random.Random(seed)
    hits = 0
    for kill in range(kills):
        child = start_child(picture_folder, run, images, 0)
        writing = run / "checkpoints"
        before = {p.name for p in writing.glob("[0-9]*")} if writing.exists() else set()
        deadline = time.monotonic() + 120
        if kill >= kills - in_save:
            while not list(writing.glob(".writing-*")) and time.monotonic() < deadline:
                pass
        else:
            # Wait until it trains, then a moment of its own.
            while {p.name for p in writing.glob("[0-9]*")} <= before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.2))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stderr.close()
        hits += bool(list(writing.glob(".writing-*")))
    return hits


def test_kill_minus_nine(picture_folder, straight, tmp_path):
    run = tmp_path / "run"
    kill_at_random_moments(picture_folder, run, 4000, kills=2, in_save=1, seed=0)
    reached = Run(run).checkpoints.newest()[0].images
    assert 0 < reached < 4000
    child = start_child(picture_folder, run, reached + 40, 1000)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err.decode()
    reference = begin(tmp_path / "reference", tiny_recipe())
    run_all(tiny_dataset(picture_folder), reference, images=reached + 40)
    assert final_weights(Run(run), reached + 40) == final_weights(reference, reached + 40)


@pytest.mark.parametrize(
    "settings",
    [
        ["network.dropout=0"],
        ["network=tutorial_unet", "network.widths=[8,16]"],
        ["network=mp_unet", "network.widths=[8,16]", "network.head_dim=8"],
    ],
)
def test_two_processes_train_as_one(picture_folder, dataset, tmp_path, settings):
    """Same loss curve to 1e-5, for the network with BatchNorm as for the one without."""
    alone = begin(tmp_path / "one", tiny_recipe(*settings))
    one = [r.loss for r in run_all(dataset, alone, images=80) if r.loss is not None]
    together = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, str(CHILD), str(picture_folder), str(together), "80", *settings],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    np.testing.assert_allclose(json.loads(done.stdout), one, rtol=1e-5)
    for a, b in zip(
        load_model(alone.path, "cpu").denoiser.parameters(),
        load_model(together, "cpu").denoiser.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_documented_command_trains_on_two_processes(picture_folder, tmp_path):
    """With batch normalisation over all processes, while only one of them measures the machine."""
    guide = (CHILD.parents[1] / "docs" / "guide" / "train.md").read_text(encoding="utf-8")
    (line,) = [line for line in guide.splitlines() if line.startswith("torchrun ")]
    command = line.replace("my_pictures", str(picture_folder)).replace("runs/mine", str(tmp_path / "run"))
    command = command.replace("--budget 2h", "--recipe ddpm --images 32")
    assert str(picture_folder) in command and "--images" in command and str(tmp_path) in command
    small = [
        "data.size=16",
        "batch=8",
        "network=tutorial_unet",
        "network.widths=[8,16]",
        "monitor.distance=0",
    ]
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments]
        + [part for setting in small for part in ("--set", setting)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert program == "torchrun" and done.returncode == 0, done.stderr
    checkpoint, _ = Run(tmp_path / "run").checkpoints.newest()
    assert checkpoint.images == 32 and checkpoint.state["processes"] == 2


def test_accumulated_pieces_are_one_batch(dataset, straight, tmp_path):
    curves = []
    for pieces in (1, 2, 4):
        recipe = tiny_recipe("network.dropout=0", f"accumulate={pieces}")
        records = run_all(dataset, begin(tmp_path / str(pieces), recipe), images=64)
        curves.append([r.loss for r in records if r.loss is not None])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-5)


def test_stratified_levels_cover_every_batch(dataset):
    recipe = tiny_recipe("stratified=true", "noise_distribution=uniform", "batch=32")
    t = batches_of(dataset, recipe).batch(range(64, 96)).t
    assert sorted((t * 32).ceil().int().tolist()) == list(range(1, 33))


def test_a_batch_is_its_pieces_wherever_it_is_cut(dataset):
    recipe = tiny_recipe("batch=32")
    feed = batches_of(dataset, recipe)
    whole = feed.batch(range(5, 37))
    for cut in (6, 8, 19):
        for one, two, both in zip(
            feed.batch(range(5, cut))[:3], feed.batch(range(cut, 37))[:3], whole[:3], strict=True
        ):
            assert torch.equal(torch.cat([one, two]), both)
    assert abs(whole.eps.mean()) < 0.05 and whole.eps.std() == pytest.approx(1, abs=0.05)
    assert len(whole.eps.flatten(1).unique(dim=0)) == 32


def test_looks_are_logged_and_leave_the_weights_alone(dataset, straight, tmp_path):
    looks = ["monitor.share=0.9", "monitor.samples=4", "monitor.levels=3", "monitor.distance=5"]
    run = begin(tmp_path / "run", tiny_recipe(*looks))
    run_all(dataset, run, images=96)
    assert final_weights(run, 96) == final_weights(straight[0], 96)
    records = run.log.records()
    held_out = [r for r in records if r["kind"] == "held_out"][-1]
    # Levels are log SNR; the cosine schedule reaches all of them.
    assert len(held_out["levels"]) == len(held_out["error"]) == len(held_out["train_error"]) == 9
    assert held_out["levels"][0] == pytest.approx(-2 * math.log(0.05))
    # Next to no noise, even an untrained v-network is nearly right: D = alpha x - sigma F.
    assert held_out["error"][0] < 0.05 < held_out["error"][-1]
    distance = [r for r in records if r["kind"] == "distance"][-1]
    assert distance["features"] == "lite0_96" and distance["n"] == 5 and distance["kid_error"] > 0
    assert distance["reference"].startswith(dataset.name) and distance["n_reference"] > 10
    # real images are nearer to other real images than samples of an untrained model are
    assert (
        abs(distance["kid_baseline"]) < distance["kid"] and distance["frechet_baseline"] < distance["frechet"]
    )
    assert sorted(p.name for p in (run.path / "samples").iterdir())[-1] == "000000096.png"


def test_the_end_is_looked_at_once(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny_recipe())
    seen = run_all(dataset, run, images=16, checkpoint_every=0)
    assert [(r.images, r.preview) for r in seen if r.preview] == [
        (16, run.path / "samples" / "000000016.png")
    ]
    assert not any(r.preview for r in run_all(dataset, run, images=16))


def test_tensorboard_events(straight):
    pytest.importorskip("tensorboard")
    files = list((straight[0].path / "tensorboard").glob("events.*"))
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(files[0])).Reload()
    logged = [record for record in straight[0].log.records() if record["kind"] == "train"]
    assert [e.step for e in events.Scalars("loss")] == [record["images"] for record in logged]
    assert events.Scalars("loss")[-1].value == pytest.approx(logged[-1]["loss"])


def test_tensorboard_events_that_cannot_be_written_are_named(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    events = TensorBoardEvents(tmp_path, 0)
    with refused("files.cannot_write", AlphabarError, path=tmp_path / "tensorboard"):
        events.add(8, {"loss": 1.0})
    (tmp_path / "tensorboard").unlink()
    events.add(8, {"loss": 1.0})
    events.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_it_learns_and_goes_on(dataset, tmp_path, dtype, compiled):
    runtime = Runtime("cuda", dtype=dtype, channels_last=True, compile=compiled, fused=True)
    run = begin(tmp_path / "run", tiny_recipe("optimizer.name=muon", "optimizer.learning_rate=0.004"))
    records = [*train(dataset, run, images=640, runtime=runtime)]
    records += train(dataset, run, images=1280, runtime=runtime)
    losses = [r.loss for r in records if r.loss is not None]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
