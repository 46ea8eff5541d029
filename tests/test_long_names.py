"""Names as long as a disk takes them: what is made of such files has shorter ones, or is refused at once."""

import os

import pytest
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.files import LONGEST_NAME, check_name, fitting_name
from alphabar.reporting import report_figures
from alphabar.reporting.report_figures import make_report_figures
from alphabar.restoration.task import png_names
from alphabar.result_folder import ResultFolder
from alphabar.runs.run import Run, check_free
from alphabar.training.launch import default_run
from refusals import refused
from test_compare import make_run

LONG = "x" * (LONGEST_NAME - 4)  # and .png
QUICK = ["--degradation", "blur:1", "--out", "out"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def length(name):
    return len(os.fsencode(name))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a" + "é" * 200, "写真" * 100])
def test_a_name_that_fits(name):
    made = fitting_name(name, "-1.png")
    assert length(made) <= LONGEST_NAME and made.startswith(name[:70]) and made.endswith("-1.png")
    made.encode()
    assert made != fitting_name(name + "y", "-1.png"), "different names stay different"
    assert made == fitting_name(name, "-1.png")
    with open(made, "w"):
        pass


def test_names_that_fit_stay_as_they_are():
    assert fitting_name("a", "-1.png") == "a-1.png"
    assert fitting_name(LONG, ".png") == f"{LONG}.png"
    assert fitting_name(LONG, "-1.png") != f"{LONG}-1.png"


def test_long_names_of_degraded_images_do_not_collide():
    names = [f"sub/{LONG}{suffix}" for suffix in (".jpg", ".png", ".bmp", ".PNG")] + [f"sub/{LONG}abcd"]
    made = list(png_names(names).values())
    assert len({name.casefold() for name in made}) == 5
    assert all(name.startswith(f"sub/{LONG[:200]}") and name.endswith(".png") for name in made)
    assert all(length(name.rpartition("/")[2]) <= LONGEST_NAME for name in made)
    assert made[1] == names[1]


def test_a_file_with_a_long_name_is_restored(call):
    Image.new("RGB", (16, 16), "red").save(f"{LONG}.png")
    for command in ("restore", "restore"):  # the second goes on with what is there
        code, _, err = call(
            command, "cars64", f"{LONG}.png", *QUICK, "-n", 2, "--steps", 1, "--precision", "fp32"
        )
        assert code == 0, err
    answers = sorted(name for name in os.listdir("out") if name.startswith("x"))
    assert [name[-6:] for name in answers] == ["-1.png", "-2.png"]


def test_files_with_long_names_are_degraded(call):
    os.mkdir("in")
    for suffix in ("png", "jpg"):
        Image.new("RGB", (16, 16), "red").save(f"in/{LONG}.{suffix}")
    code, _, err = call("degrade", "in", *QUICK)
    assert code == 0, err
    assert sum(name.endswith(".png") for name in os.listdir("out")) == 2


def test_results_whose_names_are_too_long_are_refused_before_the_work(tmp_path):
    folder = ResultFolder(tmp_path / "out", "about.json", {}, ["a.png", f"{'x' * 300}.png"])
    with refused("files.long_name", AlphabarError):
        folder.begin()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a", "a/b/c", LONG, f"{LONG}/{LONG}"])
def test_names_that_a_disk_takes(place, tmp_path):
    check_name(tmp_path / place)


@pytest.mark.parametrize("place", ["x" * 256, f"a/{'x' * 256}/b", "/".join(["x" * 200] * 30)])
def test_names_that_no_disk_takes(place, tmp_path):
    with refused("files.long_name", AlphabarError, path=tmp_path / place):
        check_name(tmp_path / place)


def test_a_report_beside_which_no_folder_fits_is_refused_before_the_work(tmp_path, monkeypatch, call):
    monkeypatch.setattr(report_figures, "SAMPLES", 4)
    run = Run(make_run(tmp_path / "run"))
    page = tmp_path / f"{'x' * 250}.html"
    with refused("files.long_name", AlphabarError):
        next(iter(make_report_figures(run, page=page)))
    code, _, err = call("report", run.path, "--out", page)
    assert code == 1 and "choose a shorter one" in err and sorted(os.listdir()) == ["run"]
    code, _, err = call("report", run.path, "--out", page, language="es")
    assert "demasiado largo" in err


def test_a_training_whose_run_has_too_long_a_name_is_refused_before_the_data_is_read(tmp_path, call):
    with refused("files.long_name", AlphabarError):
        check_free(Run(tmp_path / ("x" * 256)))
    code, _, err = call("train", "toycars:20", "--images", 8, "--run", "x" * 256)
    assert code == 1 and "choose a shorter one" in err and "reading" not in err
    code, _, err = call("train", "toycars:20", "--images", 8, "--seeds", 2, "--run", "x" * 244)
    assert code == 1 and "choose a shorter one" in err and not os.listdir(), "the page of all seeds"


def test_the_run_of_data_with_a_long_name():
    assert length(default_run("x" * 255, finetune=True).name) <= LONGEST_NAME
    assert default_run("x" * 255, finetune=True).name.endswith("-finetuned")
    assert default_run("cars", finetune=True).name == "cars-finetuned"
