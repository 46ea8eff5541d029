import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.cli.app import COMMANDS
from alphabar.cli.options import SamplingOptions, chosen_runtime, parse_conditions
from alphabar.errors import UsageError
from alphabar.formatting import parse_count, parse_duration
from alphabar.messages import message
from alphabar.progress import Progress
from alphabar.recipes.schema import make_recipe
from alphabar.runs.model import load_model
from alphabar.runs.run import Run
from alphabar.training.budget import Machine
from alphabar.training.records import TrainingResult
from delivered import deliver
from refusals import refused

TINY = [
    "data.size=16", "network.widths=[16,32]", "network.attention=0", "batch=8",
    "monitor.share=0", "monitor.samples=4", "monitor.steps=2", "monitor.levels=4", "monitor.distance=8",
    "ema.snapshots=3",
]  # fmt: skip


def training(data, run, *more):
    return ["train", data, "--run", run, *(part for s in TINY for part in ("--set", s)), *more]


@pytest.fixture(scope="module")
def trained(picture_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("cli") / "run"
    command = training(picture_folder, run, "--recipe", "ddpm", "--images", "48", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "alphabar.cli", *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["images"] == 48 and result["reason"] == "Finished"
    return run


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['alphabar', '--help']\n"
        "from alphabar.cli.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="exit codes of signals are Unix's")
@pytest.mark.parametrize("module", ["typer", "alphabar.cli.app"])
def test_ctrl_c_while_modules_are_loaded_ends_in_silence(module):
    code = (
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *about):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from alphabar.cli.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and not done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="exit codes of signals are Unix's")
def test_ctrl_c_while_libraries_tidy_up_ends_in_silence():
    code = (
        "import atexit, signal, sys\n"
        "from alphabar import versions\n"
        "from alphabar.cli.__main__ import main\n"
        "versions.version_line = lambda: atexit.register(signal.raise_signal, signal.SIGINT)\n"
        "sys.argv = ['alphabar', '--version']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and not done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and "--json" in out and "For example: alphabar" in " ".join(out.split())


def test_inspect(call, picture_folder):
    code, out, _ = call("inspect", picture_folder, "--json")
    assert code == 0 and "40" in out
    assert json.loads(out.splitlines()[-1])["pictures"] == 40


def test_resume_and_mismatch(call, trained, picture_folder):
    code, _, err = call(*training(picture_folder, trained, "--recipe", "ddpm", "--images", "48"))
    assert code == 0 and "a larger number of images or a longer" in err
    code, _, err = call("train", picture_folder, "--run", trained, "--images", "48")
    assert code == 0
    code, _, err = call(*training(picture_folder, trained, "--set", "ema.half_life=32", "--images", "64"))
    assert code == 2 and "another recipe (ema.half_life: " in err


def test_a_budget_alone_plans_and_trains(call, picture_folder, tmp_path, monkeypatch):
    slow = Machine("cpu", ((1e7, 50.0),), loading=1e6, memory=2**33)
    monkeypatch.setattr(
        "alphabar.training.launch.measure", lambda *_, **__: iter([Progress("measuring", 1, 1, slow)])
    )
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1, 2))
    settings = ["--size", "16", *(part for s in TINY[4:] for part in ("--set", s))]
    code, out, err = call("plan", picture_folder, "--budget", "2s", *settings, "--json")
    planned = json.loads(out)
    assert code == 0 and "→" in err and "GFLOP" in err
    assert planned["chosen"]["size"]["network"]["widths"] == [32, 64]
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        code, out, err = call("train", picture_folder, "--budget", "2s", *settings, "--json")
        assert code == 0, err
    assert "a larger number of images or a longer" in err
    run = Run(tmp_path / "runs" / picture_folder.name)
    # Reading the data is part of the budget, so a little less is trained than was planned.
    differing = {"images", "optimizer"}
    chosen = make_recipe(planned["recipe"])
    assert run.recipe.model_dump(exclude=differing) == chosen.model_dump(exclude=differing)
    assert run.recipe.data.size == 16 and run.recipe.monitor.share == 0


def test_a_recipe_that_is_sized_can_be_planned(call, picture_folder, monkeypatch):
    slow = Machine("cpu", ((1e7, 50.0),), loading=1e6, memory=2**33)
    monkeypatch.setattr(
        "alphabar.training.launch.measure", lambda *_, **__: iter([Progress("measuring", 1, 1, slow)])
    )
    monkeypatch.setattr("alphabar.training.model_sizes.MULTIPLES", (1,))
    command = ("plan", picture_folder, "--budget", "2s", "--size", "16", "--json", "--recipe")
    code, out, err = call(*command, "latent")
    assert code == 0 and "--budget 2s --recipe latent --set data.size=16" in err
    assert json.loads(out)["recipe"]["data"]["codec"]["name"] == "latent"
    code, _, err = call(*command, "ddpm")
    assert code == 2 and "patches, latent" in err and "train" in err


def test_seeds_train_repetitions_of_one_recipe_and_compare_them(call, picture_folder, tmp_path):
    command = training(picture_folder, tmp_path / "mine", "--images", 16, "--seeds", 2, "--json")
    code, out, err = call(*command)
    assert code == 0, err
    recipes = [Run(tmp_path / f"mine-seed{seed}").recipe for seed in range(2)]
    assert [recipe.seed for recipe in recipes] == [0, 1]
    assert recipes[0].model_dump(exclude={"seed"}) == recipes[1].model_dump(exclude={"seed"})
    assert (tmp_path / "mine-seeds.html").is_file() and "images seen" in out
    assert json.loads(out.splitlines()[-1])["page"] == str(tmp_path / "mine-seeds.html")
    shutil.rmtree(tmp_path / "mine-seed1")
    code, _, err = call(*command)
    assert code == 0 and err.count("Already trained") == 1
    code, _, err = call(*command, "--set", "batch=4")
    assert code == 0 and err.count("Already trained") == 2
    assert [Run(tmp_path / f"mine-seed{seed}").recipe.batch for seed in range(2)] == [4, 4]


def test_of_several_processes_one_compares_the_seeds(call, picture_folder, tmp_path, monkeypatch):
    done = TrainingResult(tmp_path, 8, 1.0, message("training.finished"))
    monkeypatch.setattr("alphabar.cli.train.train_to_end", lambda *_, **__: done)
    monkeypatch.setattr("alphabar.runtime.Runtime.is_main", False)
    code, out, err = call(*training(picture_folder, tmp_path / "mine", "--images", 16, "--seeds", 2))
    assert (code, out, err) == (0, "", "")


def test_a_demo_ends_where_its_training_is_stopped(call, tmp_path, monkeypatch):
    stopped = TrainingResult(tmp_path, 8, 1.0, message("training.stopped"))
    monkeypatch.setattr("alphabar.cli.demo.train_to_end", lambda *_, **__: stopped)
    monkeypatch.setattr("alphabar.cli.demo.sample", lambda *_, **__: pytest.fail("the demo goes on"))
    assert call("demo", "--out", tmp_path)[0] == 0


def test_finetuning_starts_from_the_weights_of_a_model(call, trained, picture_folder, tmp_path):
    run = tmp_path / "on"
    command = ["finetune", trained, picture_folder, "--run", run, "--images", 16]
    assert call(*command, "--set", "optimizer.learning_rate=1e-30")[0] == 0
    model, before = load_model(run), load_model(trained)
    for a, b in zip(model.denoiser.parameters(), before.denoiser.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert model.recipe.name == "ddpm, finetuned from run" and model.images == 16
    code, _, err = call(*command, "--set", "optimizer.learning_rate=1e-30")
    assert code == 0 and "continues it" in err
    larger = ["finetune", trained, picture_folder, "--run", tmp_path / "larger", "--images", 8, "--size", 32]
    assert call(*larger)[0] == 0 and load_model(tmp_path / "larger").recipe.data.size == 32
    wider = ["finetune", trained, picture_folder, "--run", tmp_path / "wider", "--images", 16]
    code, _, err = call(*wider, "--set", "network.widths=[32,64]")
    assert code == 2 and "do not fit" in err
    assert not (tmp_path / "wider").exists()


def test_a_distilled_model_samples_in_the_steps_that_it_was_made_for(call, trained, picture_folder, tmp_path):
    distill = ["distill", trained, picture_folder, "--run", tmp_path / "fast", "--images", 16]
    code, _, err = call(*distill, "--steps", 0)
    assert code == 2 and "at least 1" in err and not (tmp_path / "fast").exists()
    assert call(*distill, "--steps", 2)[0] == 0
    code, out, _ = call("sample", tmp_path / "fast", "-n", 2, "--out", tmp_path / "samples", "--json")
    assert code == 0 and json.loads(out)["steps"] == 2
    code, _, err = call("sample", tmp_path / "fast", "-n", 2, "--out", tmp_path / "more", "--steps", 5)
    assert code == 2 and "steps" in err and not (tmp_path / "more").exists()


def test_sample(call, trained, tmp_path):
    out = tmp_path / "samples"
    code, text, _ = call("sample", trained, "-n", 5, "--out", out, "--steps", 12, "--seed", 7, "--json")
    assert code == 0
    assert json.loads(text.splitlines()[-1])["steps"] == 12
    pictures = sorted(p.name for p in out.glob("*.png"))
    assert pictures == [f"{i:06d}.png" for i in range(5)]
    picture = Image.open(out / "000000.png")
    assert picture.size == (16, 16) and json.loads(picture.text["alphabar"])["seed"] == 7
    assert Image.open(out / "overview" / "process.png").width > 10 * 16
    assert (out / "overview" / "grid.png").is_file() and (out / "samples.json").is_file()
    code, _, err = call("sample", trained, "-n", 5, "--out", out)
    assert code == 1 and "other settings (seed, steps)" in err
    fewer = tmp_path / "fewer"
    assert call("sample", trained / "model", "-n", 2, "--out", fewer, "--steps", 12, "--seed", 7)[0] == 0
    one, other = (np.asarray(Image.open(p / "000001.png"), int) for p in (out, fewer))
    assert abs(one - other).max() <= 1


def test_a_comparison_has_a_row_for_each_noise_and_a_column_for_each_value(call, trained, tmp_path):
    out, plain = tmp_path / "compared", tmp_path / "plain"
    code, text, _ = call(
        "sample", trained, "-n", 2, "--out", out, "--steps", 4, "--compare", "autoguidance=1,1000", "--json"
    )
    assert code == 0 and json.loads(text.splitlines()[-1])["compare"] == {"autoguidance": ["1", "1000"]}
    pictures = [Image.open(out / f"{i:06d}.png") for i in range(4)]
    about = [json.loads(picture.text["alphabar"]) for picture in pictures]
    scales = [{g["name"]: g["scale"] for g in a["guidance"]}.get("autoguidance") for a in about]
    assert [a["position"] for a in about] == [0, 0, 1, 1] and scales == [None, 1000.0] * 2
    # Of two settings each has half of a batch, and its own number of samples.
    assert {(a["runtime"]["batch"], a["n"]) for a in about} == {(8, 2)}
    assert Image.open(out / "overview" / "grid.png").size == (34, 34)
    assert call("sample", trained, "-n", 2, "--out", plain, "--steps", 4)[0] == 0
    for i in range(2):
        drawn = np.asarray(Image.open(plain / f"{i:06d}.png"), int)
        unguided, guided = (np.asarray(picture, int) for picture in pictures[2 * i : 2 * i + 2])
        assert abs(drawn - unguided).max() <= 1 < abs(drawn - guided).max()


@pytest.mark.parametrize(
    ("classes", "attributes", "conditions"),
    [
        ([], [], []),
        (["a", "b"], ["color=red"], [{"class": "a", "color": "red"}, {"class": "b", "color": "red"}]),
        ([], ["x=1", "x = 2"], [{"x": "1"}, {"x": "2"}]),
    ],
)
def test_conditions_are_all_combinations(classes, attributes, conditions):
    assert parse_conditions(classes, attributes) == conditions


def test_evaluate_and_report(call, trained, picture_folder, tmp_path):
    arguments = ("--against", picture_folder, "--features", "lite0_96", "--json")
    code, out, _ = call("evaluate", trained, "-n", 12, *arguments)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["n"] == 12 and result["extractor"] == "lite0_96" and result["steps"] == 20
    assert "above the dimension of the features" in out and "not comparable with papers" in out
    assert "FID" not in out.replace("not an FID", "")
    samples = tmp_path / "samples"
    call("sample", trained, "-n", 12, "--out", samples)
    code, out, _ = call("evaluate", samples, "-n", 12, *arguments)
    again = json.loads(out.splitlines()[-1])
    values, values_again = ({m["key"]: m["value"] for m in r["metrics"]} for r in (result, again))
    # Not equal: the folder knows nothing of the pictures that the model held out.
    assert values_again["frechet"] == pytest.approx(values["frechet"], rel=0.2)
    code, out, _ = call("evaluate", trained, "-n", 12, *arguments, "--ema", "0.05,0.15")
    swept = json.loads(out.splitlines()[-1])["ema"]
    assert code == 0 and [r["length"] for r in swept] == [0.05, 0.15]
    assert swept[0]["profile_error"] == pytest.approx(0, abs=1e-6) and "profile error" in out
    assert 0.1 < swept[1]["profile_error"] < 0.2 and f"{swept[1]['profile_error']:.1%}" in out
    assert swept[0]["metrics"] != swept[1]["metrics"] and out.count("\n0.") == 2
    code, out, _ = call("report", trained, "--json")
    page = json.loads(out)["report"]
    html = Path(page).read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") >= 5 and "lite0_96" in html
    code, out, _ = call("evaluate", samples, "-n", 12, *arguments, language="es")
    assert "distancia de kernel (lite0_96)" in out and "12 muestras frente a" in out
    assert "kernel distance (lite0_96)" in out.splitlines()[-1]  # JSON is for programs


def test_interpolate_and_edit(call, trained, picture_folder, tmp_path):
    picture = next(iter(sorted(picture_folder.rglob("*.png"))))
    code, out, _ = call(
        "interpolate", trained, "--rows", 2, "--columns", 3, "--out", tmp_path / "way", "--json"
    )
    assert code == 0 and json.loads(out.splitlines()[-1])["columns"] == 3
    assert len(list((tmp_path / "way").glob("*.png"))) == 6
    for more in (("--strength", 0.5, "-n", 2), ("--invert", "--steps", 4)):
        made = tmp_path / more[0].strip("-")
        assert call("edit", trained, picture, "--out", made, *more)[0] == 0
        assert np.asarray(Image.open(made / "000000.png")).shape == (16, 16, 3)
        assert (made / "overview" / "grid.png").is_file()
    for wrong, told in (
        (["edit", trained, trained / "recipe.toml"], "recipe.toml"),
        (["edit", trained, picture, "--strength", 2], "at most 1"),
        (["interpolate", trained, "--prompt", "a"], "without conditions"),
    ):
        code, _, err = call(*wrong, "--out", tmp_path / "wrong")
        assert code in (1, 2) and told in err and not (tmp_path / "wrong").exists()


def test_only_what_is_asked_for_conditions_an_interpolation_or_a_variation():
    given = {"classes": ["van"], "attributes": [], "prompts": []}
    none = {"classes": [], "attributes": [], "prompts": []}
    assert SamplingOptions(none).conditions == ()  # of a command without --unconditional
    assert SamplingOptions({**none, "unconditional": False}).conditions is None  # the training data's
    assert SamplingOptions({**none, "unconditional": True}).conditions == ()
    assert list(SamplingOptions(given).conditions) == [{"class": "van"}]


def test_a_signal_while_the_runtime_is_chosen_ends_in_one_line(capsys, tmp_path):
    def choosing():
        yield Progress(message("inference.stage"), 0, 2)
        deliver(signal.SIGTERM)
        yield Progress(message("inference.stage"), 2, 2, ("model", {}))

    with pytest.raises(SystemExit) as ended:
        chosen_runtime(choosing(), tmp_path / "out")
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped: nothing is finished yet" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_interpolations_and_variations_of_a_conditional_model(call, picture_folder, tmp_path):
    picture = next(iter(sorted(picture_folder.rglob("*.png"))))
    for command in (["interpolate", "cars64", "--rows", 1, "--columns", 2], ["edit", "cars64", picture]):
        code, out, _ = call(*command, "--steps", 2, "--out", tmp_path / command[0], "--json")
        assert code == 0 and json.loads(out.splitlines()[-1])["conditions"] == []


def test_compare_two_runs(call, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    code, out, _ = call("compare", trained, other, "--out", tmp_path / "page.html", "--json")
    assert code == 0 and "images seen" in out and (tmp_path / "page.html").is_file()
    assert len(json.loads(out.splitlines()[-1])["runs"]) == 2


NEW = ["train", "{data}", "--run", "{new}"]
MISTAKES = {
    "no such data": (["inspect", "nowhere"], 2, "'nowhere'"),
    "no pictures": (["inspect", "{empty}"], 1, "no pictures in"),
    "built-in misspelt": (["inspect", "toycar"], 2, "did you mean 'toycars'"),
    "unknown recipe": ([*NEW, "--recipe", "clasic"], 2, "did you mean 'classic'"),
    "no recipe": (NEW, 2, "--budget 2h, or how many images"),
    "a key without its section": (
        [*NEW, "--recipe", "ddpm", "--set", "size=32"], 2, "write data.size"
    ),
    "an empty name": (["train", "", "--budget", "9s"], 2, "no data called ''"),
    "an empty run": (["train", "{data}", "--run", "", "--budget", "9s"], 1, "not a run"),
    "an empty folder's name": (["sample", "{run}", "--out", ""], 1, "is not empty"),
    "one seed": ([*NEW, "--images", "8", "--seeds", "1"], 2, "at least 2"),
    "seeds and a seed": (
        [*NEW, "--images", "8", "--seeds", "2", "--set", "seed=3"], 2, "leave out --set seed"
    ),
    "a distance for features": (
        ["evaluate", "{run}", "--against", "{data}", "--features", "FID"], 2, "--features inception"
    ),
    "no such command": (["sampel"], 2, "did you mean 'sample'"),
    "no such option": (["sample", "{run}", "--sed", "1", "--out", "{out}"], 2, "did you mean '--seed'"),
    "no number": (["sample", "{run}", "-n", "many", "--out", "{out}"], 2, "needs a whole number"),
    "too much": (["inspect", "{data}", "other"], 2, "something too much: other"),
    "no picture": (["upscale", "cars64", "{run}/recipe.toml", "--out", "{out}"], 1, "recipe.toml"),
    "missing recipe file": ([*NEW, "--recipe", "x.toml"], 1, "no recipe at"),
    "unknown key": (
        [*NEW, "--recipe", "ddpm", "--set", "bach=3"], 2, "did you mean 'batch'"
    ),
    "bad size": (
        [*NEW, "--recipe", "ddpm", "--set", "data.size=50"], 2, "data.size = 50"
    ),
    "zero budget": (
        [*NEW, "--recipe", "ddpm", "--budget", "0m"], 2, "more than zero"
    ),
    "no time": ([*NEW, "--recipe", "ddpm", "--budget", "soon"], 2, "is not a time"),
    "no images": ([*NEW, "--recipe", "ddpm", "--images", "0"], 2, "nothing to do"),
    "no boxes": (
        [*NEW, "--recipe", "ddpm", "--set", "data.fit=box"], 2, "no annotated boxes"
    ),
    "no model": (["sample", "{new}", "--out", "{out}"], 1, "There is no model at"),
    "a folder that is no model": (["sample", "{data}", "--out", "{out}"], 1, "neither a run folder"),
    "unknown sampler": (["sample", "{run}", "--out", "{out}", "--sampler", "hein"], 2, "did you mean 'heun'"),
    "no steps": (["sample", "{run}", "--out", "{out}", "--steps", "0"], 2, "from 1 to 100000 steps"),
    "no samples": (["sample", "{run}", "--out", "{out}", "-n", "0"], 2, "-n must be at least 1"),
    "a class of a model without": (
        ["sample", "{run}", "--out", "{out}", "--class", "BMW"], 2, "trained without conditions"
    ),
    "guidance towards nothing": (
        ["sample", "{run}", "--out", "{out}", "--guidance", "2"], 2, "strengthens a condition"
    ),
    "an attribute without a value": (
        ["sample", "{run}", "--out", "{out}", "--attribute", "red"], 2, "should read key=value"
    ),
    "no interval": (
        ["sample", "{run}", "--out", "{out}", "--guidance-interval", "5"], 2, "is no interval"
    ),
    "no attention": (
        ["sample", "{run}", "--out", "{out}", "--pag", "3"], 2, "self-attention in the middle"
    ),
    "nothing to compare": (
        ["sample", "{run}", "--out", "{out}", "--compare", "guidance"], 2, "should read key=value,value"
    ),
    "comparing what is no setting": (
        ["sample", "{run}", "--out", "{out}", "--compare", "guidence=1,2"], 2, "did you mean 'guidance'"
    ),
    "comparing no numbers": (
        ["sample", "{run}", "--out", "{out}", "--compare", "sag=much"], 2, "'much' is not a number"
    ),
    "unknown condition": (
        [*NEW, "--recipe", "ddpm", "--condition", "clas"], 2, "did you mean 'class'"
    ),
    "a network without conditions": (
        [*NEW, "--recipe", "classic", "--condition", "class"], 2, "recipe ddpm"
    ),
    "unknown features": (
        ["evaluate", "{run}", "--against", "{data}", "--features", "lite1"], 2, "did you mean 'lite0'"
    ),
    "weights where none are taken": (
        ["evaluate", "{run}", "--against", "{data}", "--weights", "{data}"], 2, "'weights'"
    ),
    "conditions for a folder": (
        ["evaluate", "{data}", "--against", "{data}", "--attribute", "color=red"], 2,
        "is a folder of samples",
    ),
    "guidance for a folder": (
        ["evaluate", "{data}", "--against", "{data}", "--pag", "0"], 2, "is a folder of samples",
    ),
    "a model that is not there": (
        ["evaluate", "{out}", "--against", "{data}", "--pag", "0"], 1, "no model at"
    ),
    "no condition and one": (
        ["sample", "{run}", "--out", "{out}", "--unconditional", "--class", "a"], 2, "means no condition",
    ),
    "a length of no number": (["evaluate", "{run}", "--against", "{data}", "--ema", "long"], 2, "0.03,0.1"),
    "an average out of reach": (["sample", "{run}", "--out", "{out}", "--ema", "0.9"], 2, "0.025 to 0.182"),
    "too few": (["evaluate", "{data}", "--against", "{data}", "-n", "41"], 1, "holds 40 images"),
    "report of nothing": (["report", "{empty}"], 1, "not a run folder and holds no model"),
    "a report that is no page": (["report", "{run}", "--out", "{out}"], 2, "must end in .html"),
    "a report in Latin": (["report", "{run}", "--language", "la"], 2, "the pages are written in en, es"),
    "a metric for features": (
        ["evaluate", "{run}", "--against", "{data}", "--features", "fid"], 2, "--features inception gives",
    ),
    "usage": (["sample", "{run}"], 2, "--out DIR is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(call, case, trained, picture_folder, tmp_path):
    command, expected, told = MISTAKES[case]
    places = {"data": picture_folder, "run": trained, "new": tmp_path / "new", "out": tmp_path / "out"}
    places["empty"] = tmp_path / "empty"
    places["empty"].mkdir()
    before = sorted(trained.rglob("*"))
    code, out, err = call(*(part.format(**places) for part in command))
    assert code == expected, err
    assert told in err and not out
    # progress may stand before it
    assert [line.startswith("alphabar: ") for line in err.strip().splitlines()].count(True) == 1
    assert err.strip().splitlines()[-1].startswith("alphabar: ")
    assert not places["new"].exists() and not places["out"].exists()
    assert sorted(trained.rglob("*")) == before


def test_pictures_of_no_class_begin_no_run(call, picture_folder, tmp_path):
    code, _, err = call(
        *training(picture_folder, tmp_path / "new", "--recipe", "ddpm", "--condition", "class")
    )
    assert code == 1 and "Sub-folders are classes" in err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_a_damaged_model_is_refused(call, trained, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(trained / "model", copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 255
    (copy / "model.safetensors").write_bytes(data)
    code, _, err = call("sample", copy, "--out", tmp_path / "out")
    assert code == 1 and "damaged" in err and not (tmp_path / "out").exists()
    (copy / "model.safetensors").unlink()
    code, _, err = call("sample", copy, "--out", tmp_path / "out", "--json")
    assert code == 1 and "missing" in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("30", 30), ("1.5h", 5400)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("500k", 500_000), ("2M", 2_000_000), ("12_000", 12000), ("1.5k", 1500)]
)
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "m", "-3", "0", "1d", "two"])
def test_what_is_no_number(text):
    with pytest.raises(UsageError):
        parse_duration(text)
    with pytest.raises(UsageError):
        parse_count(text)


def test_an_option_and_a_setting_that_contradict_each_other_are_refused():
    from alphabar.cli.train import with_shorthands

    with refused("cli.two_values", UsageError, option="--size", setting="data.size=64"):
        with_shorthands([" data.size = 64 "], size=128)
    with refused("cli.two_values", UsageError, option="--patience", setting="monitor.patience=2"):
        with_shorthands(["monitor.patience=2"], 3)
    assert with_shorthands(["data.size=128"], size=128)
    assert with_shorthands(["batch=8", "batch=4"]) == ["batch=8", "batch=4"]
