"""The command line in the person's language: help, results and errors; versions, completion, opening."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from alphabar.cli import console
from alphabar.cli.app import COMMANDS, load_command
from alphabar.cli.help import REGISTRIES, choices
from alphabar.messages import THIN_SPACE, catalogue, message
from alphabar.recipes.schema import setting_keys

ROOT = Path(__file__).parents[1]


def texts(command):
    return [param.help for param in command.params if param.name != "help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_is_in_the_catalogue(command):
    missing = [text for text in texts(load_command(command)) if text not in catalogue()]
    assert not missing and f"cli.command.{command}" in catalogue()


def test_every_help_text_of_the_catalogue_is_used():
    """The search for literals in test_messages cannot see which ones are shown."""
    used = {text for command in COMMANDS for text in texts(load_command(command))}
    used |= {f"cli.help.{name}" for name in ("help", "install_completion", "show_completion")}
    used |= {"cli.help.extension", "cli.help.version"}
    assert {key for key in catalogue() if key.startswith("cli.help.")} <= used


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("language", ["en", "es"])
def test_help_is_plain_and_in_the_language(call, command, language):
    code, out, _ = call(command, "--help", language=language)
    assert code == 0
    usage = out.splitlines()[0]
    first = {"en": "Usage: alphabar", "es": "Uso: alphabar"}[language]
    assert usage.startswith(f"{first} {command} [O") and not re.search("[{}<>]", usage)
    assert "cli.help" not in out and "(the recipe's)" not in out
    pages = re.findall(r"docs/guide/\w+\.md", out)
    assert pages and all((ROOT / page).is_file() for page in pages)
    for english in ("Options", "For example", "Guide", "Show this help"):
        assert (english in out) == (language == "en")


def test_the_list_of_commands_is_grouped_in_both_languages(call):
    for language, groups in (("en", ("Train:", "Restore:")), ("es", ("Entrenar:", "Restaurar:"))):
        code, out, _ = call("--help", language=language)
        assert code == 0 and all(group in out for group in groups)
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert call()[1] == call("--help")[1]


def test_choices_and_settings_come_from_the_registries(call):
    shown = {"sample": ("samplers", "timesteps", "initial_noises"), "train": ("recipes", "conditions")}
    shown |= {"export": ("targets",)}
    shown |= {"evaluate": ("features",), "inpaint": ("solvers",), "restore": ("solvers", "operators")}
    assert {name for names in shown.values() for name in names} == set(REGISTRIES)
    for command, names in shown.items():
        words = set(re.findall(r"\w+", call(command, "--help")[1]))
        for name in names:
            assert set(choices(name).split(", ")) <= words, (command, name)
    assert {"data.size", "optimizer.learning_rate", "seed"} <= set(setting_keys())
    assert set(setting_keys()) <= set(re.findall(r"\w+(?:\.\w+)?", call("train", "--help")[1]))


def test_an_own_guidance_is_in_the_help(call, monkeypatch):
    from alphabar.guidance import GUIDANCES

    mine = type("Mine", (GUIDANCES["sag"],), {"option": "mine", "help": "Ours."})
    monkeypatch.setitem(GUIDANCES, "mine", mine)
    monkeypatch.delitem(sys.modules, "alphabar.cli.sample", raising=False)
    assert re.search(r"--mine SCALE +Ours\.", call("sample", "--help")[1])
    del sys.modules["alphabar.cli.sample"]


MISTAKES = {
    "no folder": (["inspect", "nowhere"], "No existen datos"),
    "empty name": (["inspect", ""], "No existen datos"),
    "no command": (["sampel"], "¿quería decir 'sample'?"),
    "no option": (["inspect", "toycars", "--jsn"], "¿quería decir '--json'?"),
    "missing": (["sample", "cars64"], "Falta --out DIR"),
    "no value": (["sample", "cars64", "--seed", "1", "--out"], "necesita un valor"),
    "no number": (["sample", "cars64", "-n", "x", "--out", "o"], "necesita un número entero"),
    "too much": (["inspect", "a", "b"], "Hay algo de más: b"),
    "no time": (["train", "toycars", "--budget", "soon"], "'soon' no es un tiempo"),
    "neither": (["train", "toycars"], "Aún no hay ningún entrenamiento"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_spanish_and_json_stays_english(call, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, told = MISTAKES[case]
    code, out, err = call(command[0], "--json", *command[1:], language="es")
    assert code == 2 and told in err and len(err.strip().splitlines()) == 1
    error = json.loads(out)["error"]
    assert error != err.strip().removeprefix("alphabar: ") and told not in error
    assert not any(tmp_path.iterdir())


def test_inspection_speaks_spanish(call, picture_folder):
    code, out, err = call("inspect", picture_folder, "--json", language="es")
    *lines, last = out.splitlines()
    assert code == 0 and "40 imágenes, 0 omitidas" in lines[0] and "inspeccionando los datos" in err
    *english, last_in_english = call("inspect", picture_folder, "--json")[1].splitlines()
    assert "40 pictures, 0 skipped" in english[0]
    assert json.loads(last) == json.loads(last_in_english)
    same = set(" ".join(english).split(" ")) & set(" ".join(lines).split(" "))
    assert not same & {"pictures", "copies", "groups", "side", "size", "the", "of"}


@pytest.mark.parametrize(
    ("n", "english", "spanish"),
    [
        (1, "1 file is not a picture and was left alone", "1 archivo no es una imagen y no se usó"),
        (2, "2 files are not pictures and were left alone", "2 archivos no son imágenes y no se usaron"),
    ],
)
def test_a_number_chooses_the_words(n, english, spanish):
    said = message("data.other_files", count=n, suffixes=".txt")
    assert (said, said.in_language("es")) == (f"{english} (.txt).", f"{spanish} (.txt).")


def test_thousands_are_separated_by_a_space_in_spanish():
    said = message("training.resuming", path="runs/x", images=1234567)
    assert "1,234,567" in said and f"1{THIN_SPACE}234{THIN_SPACE}567" in said.in_language("es")


def test_version(call):
    code, out, _ = call("--version")
    assert code == 0 and re.match(r"alphabar \d+\.\d+\.\d+( \(commit [0-9a-f]{12}\))?, torch \d", out)
    assert torch.__version__.split("+")[0] in out


@pytest.mark.parametrize(
    ("words", "offered"), [("alphabar sam", "sample"), ("alphabar degrade --degr", "--degradation")]
)
def test_the_shell_completes_commands_and_options(words, offered):
    environment = os.environ | {
        "_ALPHABAR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv = ['alphabar']; from alphabar.cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [offered], done.stderr


def test_every_command_is_there_without_the_modules_of_another_system():
    """Windows has no fcntl, POSIX no msvcrt: what the one lacks is never imported by a command there."""
    code = (
        "import sys, importlib\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios', 'readline'): sys.modules[name] = None\n"
        "from alphabar.cli.app import COMMANDS, load_command\n"
        "for name in COMMANDS: load_command(name)\n"
        "for name in ('training.launch', 'sampling.sample', 'restoration.task', 'evaluation.evaluate',\n"
        "             'reporting.report', 'reporting.comparison_page', 'data.inspect', 'runs.run'):\n"
        "    importlib.import_module(f'alphabar.{name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_is_not_flushed_where_the_system_does_that(tmp_path, monkeypatch):
    from alphabar import files

    opened = []

    def opening(path, flags):
        opened.append(Path(path))
        return os.open(path, flags)

    monkeypatch.setattr(files, "os", SimpleNamespace(**vars(os) | {"name": "nt", "open": opening}))
    files.write_folder(tmp_path / "folder", {"file": b"data"})
    assert opened and not any(path.is_dir() for path in opened)
    assert files.read_folder(tmp_path / "folder") == {"file": b"data"}


def test_what_was_written_is_opened_only_where_that_is_wanted(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(console.webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    picture = tmp_path / "a b.png"
    console.open_path(picture, False)
    assert not opened
    console.open_path(picture, True)
    console.open_path("http://127.0.0.1:7860", True)
    assert opened == [picture.as_uri(), "http://127.0.0.1:7860"]
    monkeypatch.setattr(console.webbrowser, "open", lambda address: False)
    console.open_path(picture, True)
    assert "open it yourself" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("s", True), ("", False), ("no", False)])
def test_a_person_at_a_terminal_is_asked_before_long_work(monkeypatch, answer, goes_on):
    import typer

    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda: answer)
    console.confirm(yes=True)
    if goes_on:
        console.confirm(yes=False)
    else:
        with pytest.raises(typer.Exit):
            console.confirm(yes=False)


def test_enlarging_says_size_memory_and_time_first(call, tmp_path, monkeypatch):
    Image.new("RGB", (24, 16), "red").save(tmp_path / "small.png")
    command = ["upscale", "cars64", tmp_path / "small.png", "--steps", 1, "--pag", 0]
    code, _, err = call(*command, "--out", tmp_path / "out")
    assert code == 0 and re.match(r"24×16 px become 96×64 px: 1 answer, \d tiles in 1 steps, about", err)
    assert err.index("GiB of memory") < err.index("This takes about") < err.index("restoring …")
    assert Image.open(tmp_path / "out" / "small-1.png").size == (96, 64)
    monkeypatch.setattr("alphabar.cli.restore.ASK_ABOVE", 0.0)
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda: "n")
    code, _, err = call(*command, "--out", tmp_path / "no")
    assert code == 1 and "nothing was written" in err and not (tmp_path / "no").exists()
    assert call(*command, "--out", tmp_path / "yes", "--yes")[0] == 0
