"""Launching a training from Python, as the commands train, finetune, distill and plan do."""

import math
import shutil
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from alphabar.data.inspect import inspect
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json
from alphabar.progress import Progress, last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.budget import Machine, plan
from alphabar.training.launch import default_run, launch, plan_training
from alphabar.training.loop import begin
from alphabar.training.pace import far_from_plan
from alphabar.training.records import Limits
from refusals import refused

TINY = [
    "data.size=16", "network.widths=[8,16]", "network.head_dim=16", "batch=8", "monitor.share=0",
    "monitor.samples=1", "monitor.steps=2", "monitor.levels=0", "monitor.distance=0",
]  # fmt: skip
PLANNED = [setting for setting in TINY if not setting.startswith(("network", "batch"))]


def launched(data, **options):
    return last(launch(str(data), **{"images": 16, "settings": TINY, "runtime": Runtime()} | options))


@pytest.fixture(scope="module")
def trained(picture_folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "trained"
    launched(picture_folder, run=path, recipe="lean")
    return path


def test_a_run_begins_with_a_recipe_and_continues_without(trained, picture_folder):
    run = Run(trained)
    assert run.recipe.name == "lean" and run.recipe.data.channels == 3 and run.data == str(picture_folder)
    result = launched(picture_folder, run=trained, images=24, settings=[])
    assert (result.images, result.run) == (24, trained)
    assert result.reason.identifier == "training.finished"
    again = launched(picture_folder, run=trained, recipe="lean", images=24)
    assert again.reason.identifier == "training.already_trained"
    with pytest.raises(UsageError, match=r"another recipe \(seed: 0 → 4\)"):
        launched(picture_folder, run=trained, settings=["seed=4"])


@pytest.mark.parametrize("damage", ["sampling", "missing", "older"])
def test_the_model_folder_is_that_of_the_run_though_nothing_is_left_to_train(trained, tmp_path, damage):
    run, other = Run(tmp_path / "run"), Run(tmp_path / "other")
    shutil.copytree(trained, run.path)
    settings, data = [], str(run.data)
    if damage == "sampling":
        settings = ["sampling.steps=5", "sampling.timesteps.sigma_min=0.3"]
    elif damage == "missing":
        shutil.rmtree(run.model_folder)  # a kill may come after the checkpoint and before it
    else:
        launched(data, run=other.path, recipe="lean", images=8)
        shutil.rmtree(run.model_folder)
        shutil.copytree(other.model_folder, run.model_folder)
    images = run.checkpoints.newest()[0].images
    again = launched(data, run=run.path, recipe="lean", images=images, settings=[*TINY, *settings])
    assert again.reason.identifier == "training.already_trained"
    whole, folder = load_model(run.path, "cpu"), load_model(run.model_folder, "cpu")
    assert folder.recipe == whole.recipe and folder.images == whole.images == images
    assert folder.fingerprint == whole.fingerprint
    assert damage != "sampling" or folder.recipe.sampling.steps == 5
    before = (run.model_folder / "model.safetensors").stat().st_mtime_ns
    launched(data, run=run.path, recipe="lean", images=images, settings=[*TINY, *settings])
    assert (run.model_folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_with_other_settings_of_the_monitor_goes_on_and_again(picture_folder, tmp_path):
    run = tmp_path / "run"
    launched(picture_folder, run=run, recipe="lean")
    for images in (24, 32):
        launched(picture_folder, run=run, images=images, settings=["monitor.samples=2"])
    assert Run(run).recipe.monitor.samples == 2


def test_a_method_that_needs_a_model_is_refused_without_one(picture_folder, tmp_path):
    with refused("training.needs_model", method="distillation", data=str(picture_folder)):
        launched(picture_folder, run=tmp_path / "run", recipe="lean", settings=[*TINY, "method=distillation"])
    assert not (tmp_path / "run").exists()


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_written(
    picture_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(Runtime, "world_size", 3)
    with refused("training.batch_shares", batch=8, processes=3):
        launched(picture_folder, run=tmp_path / "run", recipe="lean")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_recipe_leaves_the_channels_open_continues(picture_folder, tmp_path):
    begin(tmp_path / "run", with_settings(named_recipe("lean"), TINY))
    assert launched(picture_folder, run=tmp_path / "run", settings=[]).images == 16
    assert launched(picture_folder, run=tmp_path / "run", recipe="lean", images=24).images == 24


def test_finetuning_begins_with_the_weights_of_a_model(trained, picture_folder, tmp_path):
    path = tmp_path / "finetuned"
    launched(picture_folder, run=path, finetune=trained, settings=["optimizer.learning_rate=1e-30"])
    model, before = load_model(path, "cpu"), load_model(trained, "cpu")
    assert model.recipe.name == "lean, finetuned from trained"
    for a, b in zip(model.denoiser.parameters(), before.denoiser.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_distillation_takes_the_steps_that_are_asked_for(trained, picture_folder, tmp_path):
    path = tmp_path / "distilled"
    launched(picture_folder, run=path, distill=trained, steps=2, settings=[])
    assert load_model(path, "cpu").recipe.sampling.steps == 2


def test_choices_that_do_not_fit_are_refused_before_anything_is_written(trained, picture_folder, tmp_path):
    path = tmp_path / "run"
    for options, told in (
        ({"recipe": "lean", "finetune": trained}, "only one"),
        ({"recipe": "lean", "steps": 2}, "only for distillation"),
        ({"images": None}, "no run at"),
        ({"recipe": "lean", "condition": "class"}, "no labels"),
        ({"recipe": "lean", "images": 0}, "more than zero"),
        ({"recipe": "lena"}, "'lean'"),
    ):
        with (
            pytest.raises(UsageError, match=told)
            if told != "no labels"
            else pytest.raises(Exception, match=told)
        ):
            launched(picture_folder, run=path, **options)
    assert not path.exists() or not Run(path).checkpoints.folders()


@pytest.fixture
def other_pictures(tmp_path) -> Path:
    folder = tmp_path / "others"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (16, 16), (20 * i, 9, 0)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("settings", [[], ["optimizer.learning_rate=0.5"]])
def test_a_refused_training_leaves_the_run_as_it_is(trained, other_pictures, tmp_path, settings):
    run = Run(shutil.copytree(trained, tmp_path / "run"))
    before = [(run.path / name).read_bytes() for name in ("data.json", "recipe.toml")]
    with pytest.raises(AlphabarError, match="not those that"):
        launched(other_pictures, run=run.path, settings=settings, images=24)
    with run.lock(), pytest.raises(AlphabarError, match="Another process"):
        launched(other_pictures, run=run.path, settings=settings, images=24)
    assert [(run.path / name).read_bytes() for name in ("data.json", "recipe.toml")] == before


def test_the_default_folder_is_named_after_data_and_task():
    assert default_run("pictures/my cars/") == Path("runs/my-cars")
    assert default_run("toycars:200", distill=True) == Path("runs/toycars-200-distilled")
    assert default_run("toycars", finetune=True) == Path("runs/toycars-finetuned")


def test_a_budget_alone_is_planned(picture_folder, tmp_path, monkeypatch):
    slow = Machine("cpu", ((1e7, 50.0),), loading=1e6, memory=2**33)
    monkeypatch.setattr(
        "alphabar.training.launch.measure", lambda *_, **__: iter([Progress("measuring", 1, 1, slow)])
    )
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1, 2))
    records = list(plan_training(str(picture_folder), budget=2.0, settings=PLANNED))
    planned = records[-1].result
    (told,) = (r for r in records if r.message and r.message.identifier == "training.planned")
    assert told.preview is not None and told.message.values["images"] == planned.chosen.images
    assert planned.budget == 2.0 and planned.chosen.size.network["widths"] == (32, 64)
    run = tmp_path / "run"
    options = {"run": run, "budget": 2.0, "images": None, "settings": PLANNED}
    result = launched(picture_folder, **options)
    # Reading and measuring are part of the budget, but training has half of it at least.
    assert result.seconds >= 1.0 and result.seconds + Run(run).preparation >= 2.0
    assert Run(run).preparation > 0
    differing = {"images", "optimizer"}  # the longer, the more images, and so the longer a warm-up
    assert Run(run).recipe.model_dump(exclude=differing) == planned.recipe.model_dump(exclude=differing)
    assert launched(picture_folder, **options).reason.identifier == "training.already_trained"


def test_a_training_far_from_its_plan_says_so_early(picture_folder, tmp_path, monkeypatch):
    fast = Machine("cpu", ((1e7, 1e5),), loading=1e6, memory=2**33)
    monkeypatch.setattr(
        "alphabar.training.launch.measure", lambda *_, **__: iter([Progress("measuring", 1, 1, fast)])
    )
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1,))
    monkeypatch.setattr("alphabar.training.budget.BATCHES", (8, 8))
    options = {"budget": 600.0, "images": 320, "settings": PLANNED, "runtime": Runtime()}
    options["run"] = tmp_path / "run"
    told = [(r.message.identifier, r.done) for r in launch(str(picture_folder), **options) if r.message]
    (done,) = (done for name, done in told if name == "training.slower_than_planned")
    assert done < 1


def test_a_stop_is_heard_while_the_machine_is_measured(picture_folder, tmp_path):
    stop, options = threading.Event(), {"budget": 60.0, "settings": PLANNED, "run": tmp_path / "run"}
    result, stages = None, []
    for record in launch(str(picture_folder), stop=stop, **options):
        result = record.result
        stages.append(record.stage.identifier)
        if stages[-1] == "training.stage_measuring":
            stop.set()
    assert result.reason.identifier == "training.stopped_before" and not (tmp_path / "run").exists()
    assert stages.count("training.stage_measuring") == 1


def test_a_given_runtime_is_refused_before_the_machine_is_measured(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("alphabar.training.launch.measure", None)  # it would raise TypeError
    file = tmp_path / "runtime.json"
    file.write_bytes(pack_json(Runtime(dtype=torch.float16).to_dict()))
    options = {"budget": 60.0, "settings": PLANNED, "run": tmp_path / "run", "runtime": file}
    with pytest.raises(UsageError, match="float16"):
        launched(picture_folder, images=None, **options)
    assert not (tmp_path / "run").exists()


def test_grey_images_train_with_one_channel_and_give_grey_samples(tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(24):
        Image.new("RGB", (16, 16), (10 * i,) * 3).save(folder / f"{i}.png")
    launched(folder, run=tmp_path / "run", recipe="lean")
    model = load_model(tmp_path / "run", "cpu")
    assert model.recipe.data.channels == 1 and model.shape == (1, 16, 16)
    colored = [*TINY, "data.channels=3"]
    launched(folder, run=tmp_path / "rgb", recipe=named_recipe("lean"), settings=colored)
    assert load_model(tmp_path / "rgb", "cpu").shape == (3, 16, 16)


@pytest.fixture
def wide(tmp_path):
    """Pictures of varied shapes, of which a central square loses little."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (20 + i, 20), (20 * i, 9, 0)).save(folder / f"{i}.png")
    return folder


def notes(data, **options):
    records = launch(str(data), runtime=Runtime(), **{"images": 8, "settings": TINY} | options)
    return {r.message.identifier for r in records if getattr(r.message, "identifier", None)}


def test_a_new_training_fits_the_pictures_as_inspect_says(wide, tmp_path):
    suggested = last(inspect(wide)).fit
    assert suggested == "crop"
    run = tmp_path / "run"
    assert {"training.fit", "training.few_pictures"} <= notes(wide, run=run, recipe="lean")
    assert Run(run).recipe.data.fit == suggested
    for again in ({"recipe": "lean"}, {"recipe": None, "settings": []}):
        assert not {"training.fit", "training.few_pictures"} & notes(wide, run=run, images=16, **again)


def test_a_fit_that_a_person_chose_stays(wide, tmp_path):
    chosen = {"recipe": "lean", "settings": [*TINY, "data.fit=squash"]}
    for name, options in (("set", chosen), ("recipe", {"recipe": named_recipe("lean")})):
        assert "training.fit" not in notes(wide, run=tmp_path / name, **options)
        assert Run(tmp_path / name).recipe.data.fit == "squash"


def test_small_pictures_are_counted_and_a_smaller_size_advised_where_all_are_small(wide, trained, tmp_path):
    large = [*TINY[1:], "data.size=64"]
    told = notes(wide, run=tmp_path / "run", settings=large, recipe="lean")
    assert {"codecs.enlarged", "training.size_beyond"} <= told
    for name, options in (
        ("squashed", {"recipe": "lean", "settings": [*large, "data.fit=squash"]}),
        ("finetuned", {"finetune": trained, "settings": ["data.size=32"]}),
    ):
        assert "codecs.enlarged" in notes(wide, run=tmp_path / name, **options)
    for i in range(36):
        Image.new("RGB", (160, 160), (7 * i, 9, 0)).save(wide / f"large{i}.png")
    told = launch(
        str(wide), run=tmp_path / "mixed", recipe="lean", images=8, settings=large, runtime=Runtime()
    )
    messages = {r.message.identifier: r.message for r in told if hasattr(r.message, "identifier")}
    assert messages["codecs.enlarged"].values == {"count": 12, "total": 48, "size": "64"}
    assert "training.size_beyond" not in messages


def test_only_the_detail_of_larger_pictures_is_learned_on_request(trained, picture_folder, tmp_path):
    only = ["data.size=32", "network.only_detail=true", "network.detail_width=8"]
    options = {"finetune": trained, "settings": only, "runtime": Runtime(channels_last=True, fused=True)}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    launched(picture_folder, run=straight, **options, images=32)
    for images in (16, 32):
        launched(picture_folder, run=resumed, **options, images=images)
    before, *after = (load_model(run, "cpu").denoiser.network for run in (trained, straight, resumed))
    for name, weight in before.state_dict().items():
        assert torch.equal(after[0].coarse.state_dict()[name], weight), name
    assert after[0].detail.output.weight.any()
    for name, weight in after[0].state_dict().items():
        assert torch.equal(after[1].state_dict()[name], weight), name
    told = {"finetune": trained, "images": 8, "runtime": Runtime()}
    for number, settings in enumerate([["data.size=32", "network.detail_width=8"], only, []]):
        records = launch(str(picture_folder), run=tmp_path / str(number), settings=settings, **told)
        said = [getattr(record.message, "identifier", "") for record in records]
        assert ("training.detail_alone" in said) == (number == 0)
    with pytest.raises(UsageError, match=r"network\.only_detail keeps"):
        launched(picture_folder, run=tmp_path / "new", **options, condition="clusters")
    nested = ["network=nested_unet", "coarse=2", *only]
    with pytest.raises(UsageError, match="alphabar finetune MODEL"):
        launched(picture_folder, run=tmp_path / "new", settings=[*TINY, *nested])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("length", [{"images": 16}, {"images": None, "budget": 1.0}])
def test_a_training_has_one_length(picture_folder, tmp_path, length):
    with refused("training.two_lengths", UsageError):
        launched(picture_folder, run=tmp_path / "run", settings=[*TINY, "images = 32"], **length)
    assert not (tmp_path / "run").exists()
    settings = [*TINY, "images=24"]
    result = launched(picture_folder, run=tmp_path / "run", recipe="lean", settings=settings, images=None)
    assert result.images == 24


def test_images_alone_train_the_default_recipe(picture_folder, tmp_path):
    for name, options in (("alone", {}), ("named", {"recipe": "lean"})):
        launched(picture_folder, run=tmp_path / name, **options)
    alone, named = Run(tmp_path / "alone"), Run(tmp_path / "named")
    assert alone.recipe == named.recipe and alone.preparation > 0
    weights = [(run.model_folder / "model.safetensors").read_bytes() for run in (alone, named)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("size", "recipe", "patch"), [
    ("64", "lean", 2), ("[64,256]", "lean", 2), ("128", "patches", 4), ("[128,256]", "patches", 4),
    ("160", "patches", 4), ("256", "patches", 8), ("384", "patches", 12), ("[384,512]", "patches", 8),
    ("272", "patches", 4), ("136", "lean", 2),  # what larger patches do not divide
])  # fmt: skip
@pytest.mark.parametrize("named", [False, True])
def test_from_128_px_on_patches_grow_with_the_pictures(picture_folder, tmp_path, size, recipe, patch, named):
    options = {"recipe": recipe} if named else {}
    chosen = begun(picture_folder, tmp_path / "run", f"data.size={size}", "batch=1", **options)
    assert chosen.name == recipe and chosen.network["patch"] == patch
    assert chosen.parameterization["name"] == "v" and chosen.coarse == patch // 2
    # Seen through as many times more pixels, the noise is that of 64 px.
    levels = chosen.noise_distribution["mean"] - math.log(patch / 2)
    assert levels == pytest.approx(named_recipe("lean").noise_distribution["mean"])
    for level in ("sigma_min", "sigma_max"):
        wanted = named_recipe("lean").sampling.timesteps[level]
        assert chosen.sampling.timesteps[level] * 2 / patch == pytest.approx(wanted)


@pytest.mark.parametrize(("size", "offered"), [
    ("136", "data.size=128 / data.size=144"), ("200", "data.size=192 / data.size=208"),
    ("304", "data.size=288 / data.size=320"), ("504", "data.size=480 / data.size=512"),
    ("[136,264]", "data.size=[128,256]"), ("64", None), ("144", None), ("256", None), ("[128,272]", None),
])  # fmt: skip
@pytest.mark.parametrize("how", ["train", "plan"])
def test_smaller_patches_than_the_size_calls_for_are_told(picture_folder, tmp_path, size, offered, how):
    settings = [f"data.size={size}", "batch=1"]
    if how == "plan":
        records = plan_training(str(picture_folder), budget=60.0, settings=settings)
    else:
        records = launch(str(picture_folder), run=tmp_path / "run", images=8, settings=settings)
    told = []
    for record in records:
        if Run(tmp_path / "run").exists or record.stage == "measuring this machine":
            break
        if getattr(record.message, "identifier", None) == "training.smaller_patches":
            told.append(record.message.values["offered"])
    records.close()
    assert told == ([offered] if offered else [])


def test_of_patches_that_a_person_chose_nothing_is_told(picture_folder, tmp_path):
    for i, options in enumerate(({"recipe": "lean"}, {"settings": ["network=mp_unet"]})):
        settings = [*options.pop("settings", []), "data.size=136", "batch=1"]
        for record in launch(
            str(picture_folder), run=tmp_path / f"{i}", images=8, settings=settings, **options
        ):
            assert getattr(record.message, "identifier", None) != "training.smaller_patches"
            if Run(tmp_path / f"{i}").exists:
                break


def begun(data, run, *settings, **options):
    """The recipe of a training that is closed as soon as it has begun."""
    beginning = launch(str(data), run=run, images=8, settings=settings, **options)
    for _ in beginning:
        if Run(run).exists:
            break
    beginning.close()
    return Run(run).recipe


@pytest.mark.parametrize("setting", ["parameterization=eps", "network=mp_unet"])
def test_what_patches_cannot_have_is_trained_as_lean(picture_folder, tmp_path, setting):
    """A parameterization that means cannot have, and a network without patches."""
    recipe = begun(picture_folder, tmp_path / "run", "data.size=128", setting)
    assert recipe.name == "lean" and recipe.coarse == 1


def test_the_advice_of_another_size_keeps_the_squares_of_the_plan(picture_folder, tmp_path):
    recipe = begun(picture_folder, tmp_path / "planned", "data.size=256")
    machine = Machine("cpu", ((1e9, 30.0),), loading=1e6, memory=2**36)
    planned = plan(machine, recipe, 8000, 7200.0)
    told = far_from_plan(planned, planned.chosen.rate / 8, Limits(None, 7200.0))
    settings = told[1].values["settings"].replace("--set ", "").split()
    again = begun(picture_folder, tmp_path / "again", "data.size=256", *settings)
    assert (again.coarse, again.network["patch"]) == (4, 8) == (recipe.coarse, recipe.network["patch"])
    assert again.noise_distribution == recipe.noise_distribution


def test_what_precedes_the_first_update_counts_as_part_of_the_budget():
    assert Limits(None, 100.0).budget == 100.0
    assert Limits(None, 100.0, 30.0).budget == 70.0
    assert Limits(None, 100.0, 90.0).budget == 50.0  # a training is never nothing
    limits = Limits(None, 100.0, 30.0)
    assert limits.share(0, 35.0) == 0.5 and limits.reached(0, 70.0) and not limits.reached(0, 69.0)
    assert Limits(10, None, 5.0).budget is None
