"""What a training cannot use of its data is remembered, and said in the studio's form and beside its runs."""

import html
import io
import shutil
import zipfile

import pytest
from PIL import Image

from alphabar.files import write_document
from alphabar.messages import Message
from alphabar.runs.run import Run, data_notes
from alphabar.studio.models import ModelStore
from test_launch import launched
from test_studio_faults import form_of, page_of

pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")

TABLE = "file_name,text\n0.png,red\nnone.png,lost\n1.png,blue,too,much\n"
SAID = {"data.skipped", "data.metadata_lines", "data.other_files"}


def files():
    made = {"metadata.csv": TABLE.encode(), "broken.png": b"no picture", "notes.xyz": b"?"}
    for i in range(40):
        png = io.BytesIO()
        Image.new("RGB", (24, 24), (6 * i, 200 - 5 * i, 90)).save(png, "PNG")
        made[f"{i}.png"] = png.getvalue()
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run on data that cannot all be used."""
    data, runs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    for name, content in files().items():
        (data / name).write_bytes(content)
    launched(data, run=runs / "tiny", recipe="lean")
    return runs


def test_a_run_remembers_what_was_said_of_its_data(runs):
    notes = data_notes(Run(runs / "tiny"))
    assert all(isinstance(note, Message) for note in notes)
    assert {note.identifier for note in notes} >= SAID
    assert any("metadata.csv" in note for note in notes)


def test_a_run_of_which_nothing_is_known_has_no_notes(tmp_path):
    run = Run(tmp_path)
    assert data_notes(run) == []
    for notes in ("text", [1, {"message": "x"}], None):
        write_document(tmp_path / "data.json", {"data": "toycars", "notes": notes})
        assert data_notes(run) == [] and run.data == "toycars"
    run.remember_data("toycars")
    assert data_notes(run) == []


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (
            "en",
            ["Notes on the data of tiny", "2 files are left out", "the tab Data lists all", "metadata.csv"],
        ),
        ("es", ["Notas sobre los datos de tiny", "Se omiten 2 archivos", "la pestaña Datos", "metadata.csv"]),
    ],
)
def test_the_tab_of_runs_shows_the_notes_of_the_chosen_runs(runs, tmp_path, language, said):
    page = page_of(ModelStore(runs), tmp_path, language)
    from alphabar.studio.jobs import TrainingJobs
    from alphabar.studio.tabs.runs import RunsTab

    with page.blocks:
        tab = RunsTab(page, TrainingJobs(page.models))
    (shown,) = tab.update(["tiny"], None, 100)
    (notes,) = [each for each in shown if isinstance(each, str) and "metadata.csv" in each]
    text = html.unescape(notes)
    assert all(each in text for each in said) and "alphabar inspect" not in text


def test_notes_that_come_while_a_run_is_shown_are_shown(runs, tmp_path):
    page = page_of(ModelStore(runs), tmp_path)
    from alphabar.studio.jobs import TrainingJobs
    from alphabar.studio.tabs.runs import RunsTab

    with page.blocks:
        tab = RunsTab(page, TrainingJobs(page.models))
    run, index = Run(runs / "tiny"), -5
    (shown,) = tab.update(["tiny"], None, 100)
    state, before = shown[index], data_notes(run)
    (again,) = tab.update(["tiny"], state, 100)
    assert not any(isinstance(each, str) and "metadata.csv" in each for each in again), "nothing is new"
    run.remember_data("elsewhere", before)
    (again,) = tab.update(["tiny"], state, 100)
    assert any(isinstance(each, str) and "metadata.csv" in each for each in again)


def test_a_run_with_another_name_stays_the_one_that_is_shown(runs, tmp_path):
    models = ModelStore(runs)
    shutil.copytree(runs / "tiny", runs / "another")
    page = page_of(models, tmp_path)
    from alphabar.studio.jobs import TrainingJobs
    from alphabar.studio.tabs.runs import RunsTab

    with page.blocks:
        tab = RunsTab(page, TrainingJobs(models))
    models.rename("tiny", "my dogs")
    models.rename("my dogs", "dogs")
    (shown,) = tab.update(["tiny"], None, 100)  # of a page that has not heard of the new name yet
    (choice,) = [each for each in shown if isinstance(each, dict) and "choices" in each]
    assert choice["value"] == ["dogs"] and tab.views
    assert models.still_there(["another", "tiny", "dogs", "missing"], models.runs()) == ["another", "dogs"]
    models.rename("dogs", "tiny")
    assert models.still_there(["my dogs", "tiny"], models.runs()) == ["tiny"]
    models.delete("tiny")
    assert models.still_there(["tiny", "my dogs"], models.runs()) == []


def test_the_form_says_what_cannot_be_used(tmp_path):
    form = form_of(ModelStore(tmp_path / "opened"), tmp_path)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name, content in files().items():
            archive.writestr(name, content)
    *_, (found, *_) = form.suggest("upload", [str(tmp_path / "data.zip")])
    text = html.unescape(found)
    assert "40 pictures" in text and "2 files are left out; the first is " in text
    assert "metadata.csv" in text and "xyz" in text
    assert "--set" not in text and "alphabar inspect" not in text
