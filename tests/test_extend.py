"""The examples of docs/extend.md, run as a reader would run them, and what extensions may not do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alphabar
from alphabar.errors import AlphabarError, UsageError
from alphabar.extensions import LOADED, load_extension
from alphabar.registry import Registry

DOCUMENT = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, re.S))
TINY = [
    "data.size=16",
    "batch=8",
    "monitor.share=0",
    "monitor.levels=0",
    "monitor.distance=0",
    "monitor.samples=1",
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for name, code in EXAMPLES.items():
        (folder / name).write_text(code, encoding="utf-8")
    return folder


def run(folder, *command, files=EXAMPLES):
    """A command with extensions, in a process of its own: (exit code, last line of stdout, stderr)."""
    extensions = [part for name in files for part in ("--extension", str(folder / name))]
    line = [sys.executable, "-m", "alphabar.cli", *extensions, *map(str, command)]
    done = subprocess.run(line, capture_output=True, text=True)
    return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr


@pytest.mark.parametrize("form", [("--extension={}",), ("--extension", "{}")])
def test_both_forms_of_the_option_load_the_file(call, tmp_path, form):
    missing = tmp_path / "no=file.py"
    code, _, err = call(*(part.format(missing) for part in form), "plan", "--help")
    assert code == 2 and str(missing) in err
    code, _, err = call("--extension")
    assert code == 2 and "--extension" in err


def test_every_section_has_an_example():
    assert len(EXAMPLES) == 9 and len(EXAMPLES) == DOCUMENT.count("```python")


def test_an_extensions_sampler_and_guidance_sample(examples, tmp_path):
    options = ("--sampler", "midpoint", "--steps", 2, "--sharpening", 0.5, "--precision", "fp32")
    out = tmp_path / "samples"
    code, line, err = run(
        examples, "sample", "cars64", "-n", 1, "--out", out, *options, "--json",
        files=["my_sampler.py", "my_guidance.py"],
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(line)["sampler"] == {"name": "midpoint", "fraction": 0.5}
    assert "sharpening" in [each["name"] for each in json.loads(line)["guidance"]]


@pytest.mark.slow
def test_all_examples_work_together(examples, tmp_path):
    trained = tmp_path / "run"
    settings = [part for s in [*TINY, "data.codec=half_range"] for part in ("--set", s)]
    code, line, err = run(
        examples,
        "train",
        "squares:60",
        "--run",
        trained,
        "--recipe",
        "plain",
        "--images",
        32,
        *settings,
        "--json",
    )
    assert code == 0 and json.loads(line)["images"] == 32, err
    options = ("--sampler", "midpoint", "--steps", 3, "--sharpening", 0.5)
    code, line, err = run(
        examples, "sample", trained, "-n", 2, "--out", tmp_path / "samples", *options, "--json"
    )
    assert code == 0, err
    made = json.loads(line)
    assert made["sampler"] == {"name": "midpoint", "fraction": 0.5}
    assert [(g["name"], g["scale"]) for g in made["guidance"]] == [("sharpening", 0.5)]
    restore = ("--degradation", "darken:0.5", "--solver", "projection", "--steps", 3)
    picture = tmp_path / "samples" / "000000.png"
    code, line, err = run(
        examples, "restore", trained, picture, *restore, "--out", tmp_path / "restored", "--json"
    )
    assert code == 0 and json.loads(line)["solver"]["name"] == "projection", err
    code, line, err = run(
        examples, "evaluate", trained, "--against", "squares:60", "-n", 8, "--features", "lite0_96", "--json"
    )
    assert code == 0, err
    metric = next(m for m in json.loads(line)["metrics"] if m["key"] == "mean_distance")
    assert metric["value"] > 0 and metric["better"] == "lower" and metric["baseline"] > 0
    code, line, err = run(
        examples, "export", trained, "--to", "npz", "-n", 8, "--out", tmp_path / "npz", "--json"
    )
    assert code == 0 and json.loads(line)["largest"] == 0, err
    assert (tmp_path / "npz" / "weights.npz").is_file()
    code, _, err = run(
        examples, "sample", trained, "-n", 1, "--out", tmp_path / "none", files=["my_sampler.py"]
    )
    assert code == 2 and "--extension" in err and "my_" in err and not (tmp_path / "none").exists()


def test_the_help_names_the_choices_of_an_extension(examples):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "alphabar.cli", "sample", "--help"),
            *(p for name in EXAMPLES for p in ("--extension", str(examples / name))),
        ],
        capture_output=True,
        text=True,
    )
    assert "midpoint" in done.stdout and "--sharpening" in done.stdout


def test_an_existing_name_is_refused():
    registry = Registry("sampler", {"ddim": print})
    with pytest.raises(UsageError, match="ddim"):
        registry.register("ddim", print)


def test_what_goes_wrong_in_a_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="nothing"):
        load_extension(tmp_path / "nothing.py")
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\nx.y\n", encoding="utf-8")
    with pytest.raises(AlphabarError, match=r"line 2: AttributeError"):
        load_extension(broken)
    assert "broken" not in LOADED


def test_a_file_is_loaded_once(tmp_path):
    file = tmp_path / "counting.py"
    file.write_text("import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\n", encoding="utf-8")
    first, again = alphabar.load_extension(file), alphabar.load_extension(file)
    import builtins

    assert first is again and builtins.loads == 1
    del builtins.loads
