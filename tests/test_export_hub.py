"""Exports for the Hugging Face Hub and models loaded from it, against a local server that answers as it."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.data.dataset import cache_root
from alphabar.errors import AlphabarError
from alphabar.evaluation.record import FILE
from alphabar.export.base import Export
from alphabar.export.card import without_paths
from alphabar.export.hub import Hub
from alphabar.export.upload import check_upload, upload_folder
from alphabar.files import (
    MANIFEST,
    Damaged,
    DamagedFile,
    pack_json,
    read_folder,
    write_document,
    write_folder,
)
from alphabar.progress import last
from alphabar.runs.hub import HubModel, hub_model
from alphabar.runs.model import holds_model, load_model, locate
from alphabar.runs.run import Run
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from export_models import conditioned
from hub_server import TOKEN, hub_server
from refusals import refused

huggingface_hub = pytest.importorskip("huggingface_hub")
NAME = "someone/small-cars"


@pytest.fixture(scope="module")
def model():
    return conditioned(early=True)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return exported(model, tmp_path_factory.mktemp("hub") / "small-cars")


def exported(model, folder, **settings):
    folder.mkdir()
    last(Hub(samples=4, **settings).write(Export(model, sampling_settings(model), "fp32"), folder))
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The repositories of a running server, which stands for the Hub, and an empty cache."""
    with hub_server() as (address, repositories):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        repositories.address = address
        yield repositories


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_upload_comes_back(hub, folder, model, monkeypatch, call, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert upload_folder(folder, NAME) == f"{hub.address}/{NAME}"
    ((_, held),) = hub.commits[NAME]
    assert held == files_of(folder) and NAME in hub.private
    loaded = load_model(f"hf://{NAME}")
    assert loaded.path.name == "small-cars" and loaded.fingerprint == model.fingerprint
    own, theirs = (last(sample(each, 3, precision="fp32")) for each in (model, loaded))
    assert own.equal(theirs)
    code, _, err = call("sample", f"hf://{NAME}", "-n", 2, "--out", tmp_path / "out")
    assert code == 0, err
    file = sorted((tmp_path / "out").glob("*.png"))[0]
    assert read_png_metadata(file)["model"] == f"hf://{NAME}@{hub.commits[NAME][0][0]}"
    picture = Image.open(file)
    assert (numpy.asarray(picture) == own[0].numpy()).all()
    assert upload_folder(folder, NAME), "a second upload is a second commit"
    assert len(hub.commits[NAME]) == 2


def test_it_is_fetched_once_and_then_without_the_hub(hub, folder, monkeypatch):
    commit = hub.add(NAME, files_of(folder))
    first = locate(f"hf://{NAME}")
    assert first == locate(Path(f"hf://{NAME}")), "a Path has one slash"
    fetched = [path for method, path in hub.asked if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(set(fetched)) == len(read_folder(folder)) + 1
    assert not any(path.endswith((".py", ".md", ".png")) for path in fetched)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert locate(f"hf://{NAME}") == first and holds_model(Path(f"hf://{NAME}"))
    assert locate(f"hf://{NAME}@{commit}") == first
    with refused("hub.unreachable", AlphabarError):
        locate(f"hf://{NAME}@other")


def test_revisions(hub, folder, model):
    old = hub.add(NAME, files_of(folder))
    assert locate(f"hf://{NAME}").parent.name == old
    new = hub.add(NAME, {**files_of(folder), "more.txt": b""})
    assert locate(f"hf://{NAME}").parent.name == new
    assert locate(f"hf://{NAME}@{old}").parent.name == old
    with refused("hub.no_revision"):
        locate(f"hf://{NAME}@v2")


def test_a_damaged_list_of_revisions_is_not_believed(hub, folder, monkeypatch):
    hub.add(NAME, files_of(folder))
    locate(f"hf://{NAME}")
    (file,) = (cache_root() / "hub").glob("*/revisions.json")
    file.write_bytes(file.read_bytes().replace(b"main", b"mail"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(DamagedFile), refused("hub.unreachable", AlphabarError):
        locate(f"hf://{NAME}@mail")


def test_not_found_private_and_gated(hub, folder, monkeypatch):
    for name in ("someone/private", "someone/gated", "someone/else"):
        hub.add(name, files_of(folder) if name != "someone/else" else {"README.md": b"another library's"})
    hub.private.add("someone/private")
    hub.gated.add("someone/gated")
    for name in ("no/one", "someone/private"):
        with refused("hub.not_found", AlphabarError, model=HubModel(name, "main")):
            locate(f"hf://{name}")
    with refused("hub.gated", AlphabarError):
        locate("hf://someone/gated")
    with refused("hub.no_model", AlphabarError):
        locate("hf://someone/else")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert holds_model(Path("hf://someone/private"))


def test_a_command_says_it_in_one_sentence(hub, call):
    code, _, err = call("sample", "hf://no/one", "--out", "nowhere", language="es")
    assert code == 1 and err.count("\n") == 1 and "no/one" in err and "HF_TOKEN" in err


def test_a_damaged_download_leaves_nothing(hub, folder):
    hub.add(NAME, files_of(folder))
    whole = (folder / "model.safetensors").read_bytes()
    hub.change["model.safetensors"] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(Damaged, match=f"arrived damaged.*: hf://{NAME}/model.safetensors is damaged"):
        locate(f"hf://{NAME}")
    hub.change.clear()
    found = locate(f"hf://{NAME}")
    (found / "model.safetensors").write_bytes(b"changed on this computer")
    assert load_model(f"hf://{NAME}").path == found, "what is damaged in the cache is fetched again"


def test_only_tensors_and_json_are_fetched(hub, folder, tmp_path):
    """A manifest that lists code or a pickle is refused before either is fetched."""

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for name in ("early.pkl", "extension.py", "../evil.json"):
        made = tmp_path / "evil"
        write_folder(made, {**read_folder(folder), Path(name).name: pickle.dumps(Evil())})
        files = files_of(made)
        files[MANIFEST] = files[MANIFEST].replace(Path(name).name.encode(), name.encode())
        hub.add(NAME, files)
        hub.asked.clear()
        with refused("hub.other_file", AlphabarError):
            locate(f"hf://{NAME}")
        assert not any("evil" in path or path.endswith((".pkl", ".py")) for _, path in hub.asked)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["hf://one", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a b/c"])
def test_other_forms(text):
    with refused("hub.form"):
        hub_model(text)


def test_uploads_that_cannot_be(hub, folder, monkeypatch, call, tmp_path):
    with refused("hub.upload_form"):
        check_upload("no owner")
    with refused("hub.no_token", AlphabarError):
        upload_folder(folder, NAME)
    code, _, err = call("export", "cars64", "--to", "hub", "--out", tmp_path / "out", "--upload", NAME)
    assert code == 1 and "HF_TOKEN" in err and not (tmp_path / "out").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with refused("hub.not_uploaded", AlphabarError):
        upload_folder(folder, "closed/model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with refused("hub.not_uploaded", AlphabarError):
        upload_folder(folder, NAME)
    assert not hub.commits


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for ask in (lambda: locate(f"hf://{NAME}"), lambda: check_upload(NAME)):
        with refused("hub.needs_library", AlphabarError):
            ask()


def evaluation(images):
    """An entry of evaluation.json, as `alphabar evaluate` writes it."""
    kid = {"key": "kid", "name": "KID", "value": 0.0171, "better": "lower", "interval": [0.015, 0.019]}
    report = {"metrics": [{**kid, "baseline": 0.0003}], "extractor": "lite0", "n": 500, "reference_n": 6409}
    where = {"reference": "6,409 pictures of /home/jane doe/cars", "protocol": "(x − 127)/128, 224 px"}
    copies = {"copies": 0, "n": 500, "sentence": "0 of 500 samples are as near as a copy would be."}
    return {**report, **where, "images": images, "memorization": copies}


def test_the_card(model, tmp_path):
    card = huggingface_hub.ModelCard.load(exported(model, tmp_path / "plain") / "README.md")
    assert card.data.license == "unknown" and card.data.library_name == "alphabar"
    assert {"alphabar", "diffusion"} <= set(card.data.tags)
    assert "not evaluated" in card.text and "not recorded" in card.text and "16×16" in card.text
    run = tmp_path / "run"
    run.mkdir()
    (run / FILE).write_bytes(pack_json([evaluation(96), evaluation(50)]))
    write_document(run / "data.json", {"data": "/home/jane doe/small cars"})
    known = replace(model, path=run)
    card = huggingface_hub.ModelCard.load(exported(known, tmp_path / "known", licence="mit") / "README.md")
    assert card.data.license == "mit" and "small cars" in card.text and "jane" not in card.text
    for text in (
        "0.0171",
        "[0.015, 0.019]",
        "0.0003",
        "500",
        "pictures of cars",
        "(x − 127)/128, 224 px",
        "0 of 500 samples",
    ):
        assert text in card.text
    assert "not evaluated" not in card.text
    spaced = replace(model, path=tmp_path / "my secret run")
    text = (exported(spaced, tmp_path / "spaced") / "README.md").read_text()
    assert "alphabar sample hf://OWNER/my-secret-run -n 16" in text
    assert hub_model("hf://OWNER/my-secret-run") is not None  # a form that is accepted
    file = tmp_path / "found.json"
    file.write_bytes(pack_json(evaluation(96)))  # as --json prints it
    card = huggingface_hub.ModelCard.load(
        exported(model, tmp_path / "file", evaluation=str(file)) / "README.md"
    )
    assert "0.0171" in card.text
    file.write_bytes(pack_json(evaluation(95)))
    for other in (file, tmp_path / "missing.json"):
        with refused("hub.no_evaluation"):
            Hub(evaluation=str(other)).check(Export(model, sampling_settings(model), "fp32"))
    with refused("hub.licence"):
        Hub(licence="My own licence")


def test_nothing_of_the_computer_is_in_an_export(model, tmp_path):
    home = "/home/jane doe/pictures"
    recipe = model.recipe.model_copy(update={"name": f"lean, finetuned from {home}/runs/cars"})
    run = tmp_path / "jane's run"
    run.mkdir()
    Run(run).remember_data(home)
    leaking = replace(model, recipe=recipe, path=run)
    folder = exported(leaking, tmp_path / "out")
    for file in folder.iterdir():
        assert not any(word in file.read_bytes() for word in (b"jane doe", b"/home", str(tmp_path).encode()))
    assert json.loads((folder / "recipe.json").read_text())["recipe"]["name"] == "lean, finetuned from cars"
    assert not {".jpg", ".jpeg"} & {file.suffix for file in folder.iterdir()}
    with Image.open(folder / "samples.png") as grid:
        assert not grid.info.keys() - {"dpi"} and not grid.getexif()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("lean", "lean"),
        ("hf://datasets/owner/name", "hf://datasets/owner/name"),
        (r"x, finetuned from C:\Users\jane doe\cars", "x, finetuned from cars"),
        ("from runs/jane doe/cars, wider", "from cars, wider"),
        ("~/pictures/", "pictures"),
    ],
)
def test_without_paths(text, clean):
    assert without_paths({"a": [text]}) == {"a": [clean]}


def test_the_settings_of_the_export_become_the_default(model, tmp_path):
    settings = sampling_settings(model, steps=3, guidance={"pag": 1.0}, guidance_interval=(0.5, 9.0))
    folder = tmp_path / "out"
    folder.mkdir()
    last(Hub(samples=1).write(Export(model, settings, "fp32"), folder))
    loaded = load_model(folder)
    own = sampling_settings(loaded)
    assert own.steps == 3 and own.guidance[0]["interval"] == (0.5, 9.0) and own.guidance[0]["scale"] == 1.0
    pairs = ((loaded, None), (model, settings))
    own, theirs = (last(sample(m, 2, s, precision="fp32")) for m, s in pairs)
    assert own.equal(theirs)
