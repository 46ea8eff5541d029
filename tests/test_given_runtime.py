"""The runtime that a person gives: plain, auto, the file of any run, and files that are none."""

import json
from pathlib import Path

import pytest

from alphabar.cli.studio import read_password
from alphabar.errors import UsageError
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import read_recipe
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.given_runtime import given_runtime
from alphabar.training.launch import launch
from alphabar.training.trial import Difference
from test_launch import TINY, launched

GOOD = Runtime(channels_last=True, fused=True).to_dict()


def weights(run: Path) -> bytes:
    return Run(run).checkpoints.newest()[0].files["model.safetensors"]


def written(run: Path) -> dict:
    return json.loads((run / "runtime.json").read_text())


def notes(data, **options) -> list[str]:
    records = launch(str(data), **{"images": 16, "settings": TINY} | options)
    return [record.message.identifier for record in records if hasattr(record.message, "identifier")]


def file(path: Path, **changes) -> Path:
    path.write_text(json.dumps({key: v for key, v in {**GOOD, **changes}.items() if v is not ...}))
    return path


def test_a_measured_runtime_is_written_down_and_gives_the_same_bits_again(picture_folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert "training.runtime_written" in notes(picture_folder, run=first, recipe="lean")
    assert "training.runtime_given" in notes(
        picture_folder, run=second, recipe="lean", runtime=str(first / "runtime.json")
    )
    assert {**written(first), "notes": 0} == {**written(second), "notes": 0}
    assert weights(first) == weights(second)
    launched(picture_folder, run=first, images=32, settings=[], runtime=None)
    launched(picture_folder, run=second, images=32, settings=[], runtime="auto")
    assert {**written(first), "notes": 0} == {**written(second), "notes": 0}
    assert weights(first) == weights(second)


def test_plain_means_plain_and_a_change_is_told(picture_folder, tmp_path):
    run = tmp_path / "run"
    told = notes(picture_folder, run=run, recipe="lean", runtime=file(tmp_path / "r.json"))
    assert "training.other_runtime" not in told
    assert {key: written(run)[key] for key in ("channels_last", "fused")} == {
        "channels_last": True,
        "fused": True,
    }
    assert "training.other_runtime" in notes(picture_folder, run=run, settings=[], images=24, runtime="plain")
    kept = {**Runtime().to_dict(), "machine": written(run)["machine"], "notes": written(run)["notes"]}
    assert written(run) == kept
    assert "training.other_runtime" not in notes(picture_folder, run=run, settings=[], images=32)
    assert {**written(run), "notes": 0} == {**kept, "notes": 0}


def test_another_machine_is_told_in_a_given_runtime_too(picture_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    notes(picture_folder, run=run, recipe="lean", runtime="plain")
    again = {"run": run, "settings": [], "runtime": "plain"}
    assert "training.other_machine" not in notes(picture_folder, images=24, **again)
    monkeypatch.setattr("alphabar.training.given_runtime.describe_machine", lambda device: "another one")
    assert "training.other_machine" in notes(picture_folder, images=32, **again)


def test_a_run_folder_stands_for_its_file(tmp_path):
    file(tmp_path / "runtime.json", dtype="bfloat16")
    assert given_runtime(tmp_path).dtype is given_runtime(tmp_path / "runtime.json").dtype
    assert given_runtime("auto") is None
    short = file(tmp_path / "short.json", machine=..., notes=...)  # what a person wrote by hand
    assert given_runtime(short).channels_last


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_that_editors_of_windows_write_are_read(tmp_path, encoding):
    (tmp_path / "runtime.json").write_text(json.dumps(GOOD), encoding)
    assert given_runtime(tmp_path / "runtime.json").channels_last
    recipe = named_recipe("lean")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding)
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    (tmp_path / "password").write_text("ñandú\n", encoding)
    assert read_password(tmp_path / "password") == "ñandú"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "There is no"),
        ("", "cannot be read as a runtime"),
        ("[" * 100_000, "cannot be read as a runtime"),
        ("\x00\xff", "cannot be read as a runtime"),
        ("[]", "cannot be read as a runtime"),
        (json.dumps(GOOD)[:-5], "cannot be read as a runtime"),
        ({"dtype": "bf16"}, 'dtype = "bf16": choose one of "float32", "bfloat16"'),
        ({"dtype": ["float32"]}, "dtype ="),
        ({"compile": 1}, "compile = 1: choose one of false, true"),
        ({"fused": ...}, "fused = null"),
        ({"device": "tpu"}, 'device = "tpu"'),
        ({"machine": 3}, "machine = 3"),
        ({"speed": "high"}, "unknown key 'speed'"),
        ({"device": "mps"}, "needs the device mps"),
        ({"dtype": "float16"}, "float16 needs a CUDA GPU"),
    ],
)
def test_a_file_that_is_no_runtime_is_refused_before_anything_is_written(
    picture_folder, tmp_path, text, told
):
    path = tmp_path / "runtime.json"
    if isinstance(text, dict):
        file(path, **text)
    elif text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=told):
        launched(picture_folder, run=tmp_path / "run", recipe="lean", runtime=path)
    assert not (tmp_path / "run").exists()


def test_a_method_that_cannot_be_compiled_says_so(picture_folder, tmp_path):
    path = file(tmp_path / "runtime.json", compile=True)
    settings = ["data.size=16", "network.width=4", "batch=8"]
    with pytest.raises(UsageError, match="method 'gan' cannot be compiled"):
        launched(picture_folder, run=tmp_path / "run", recipe="gan", settings=settings, runtime=path)


def test_wrong_gradients_are_refused_whoever_chose_the_runtime(picture_folder, tmp_path, monkeypatch):
    path = file(tmp_path / "runtime.json", dtype="bfloat16")
    wrong = Difference("stem.weight", 0.0, 0.0)
    monkeypatch.setattr("alphabar.training.probe.wrong_gradient", lambda *args, **more: wrong)
    with pytest.raises(UsageError, match=r"gradients are wrong, most of all that of stem\.weight"):
        launched(picture_folder, run=tmp_path / "run", recipe="lean", runtime=path)
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_it(call, picture_folder, tmp_path):
    path, run = file(tmp_path / "r.json"), tmp_path / "run"
    settings = [part for setting in TINY for part in ("--set", setting)]
    command = ["train", picture_folder, "--recipe", "lean", "--images", "16", "--run", run, *settings]
    code, _, told = call(*command, "--runtime", path)
    assert code == 0 and f"as {path} says" in told and written(run)["channels_last"]
    code, _, told = call(*command, "--runtime", tmp_path / "no.json")
    assert code == 2 and "--runtime takes plain, auto" in told
