"""The studio without a browser: what it opens, what it unpacks, whom it answers."""

import asyncio
import io
import json
import re
import shutil
import stat
import string
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.codecs.png_metadata import png_metadata, read_png_metadata
from alphabar.errors import AlphabarError, UsageError
from alphabar.runs.model import load_model, shipped
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.jobs import TrainingJob, TrainingJobs
from alphabar.studio.models import ModelStore
from alphabar.studio.security import API, LARGEST_MESSAGE, Refused, RequestGuard, check_job
from alphabar.studio.tabs.generate import settings_from_controls
from alphabar.studio.translations import LANGUAGES, TEXTS
from alphabar.studio.upload import unpack
from alphabar.training.loop import begin, train
from training_child import tiny_dataset, tiny_recipe

STUDIO = Path(__file__).parents[1] / "src" / "alphabar" / "studio"


@pytest.fixture(scope="module")
def runs(picture_folder, tmp_path_factory) -> Path:
    """A folder with two runs of a tiny model."""
    folder = tmp_path_factory.mktemp("runs")
    dataset = tiny_dataset(picture_folder)
    for name in ("older", "newer"):
        run = begin(folder / name, tiny_recipe())
        run.remember_data(str(picture_folder))
        for _ in train(dataset, run, images=16, runtime=Runtime()):
            pass
    return folder


# ---------------------------------------------------------------- texts


def test_every_text_has_both_languages_and_the_same_gaps():
    def gaps(text):
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

    for key, texts in TEXTS.items():
        assert len(texts) == len(LANGUAGES) and all(texts), key
        assert gaps(texts[0]) == gaps(texts[1]), key


def test_every_text_that_is_used_exists_and_none_is_left_over():
    source = "\n".join(path.read_text() for path in STUDIO.rglob("*.py") if path.name != "translations.py")
    exact = set(re.findall(r"\btext\(\s*[\"'](\w+)[\"']", source))
    begun = tuple(set(re.findall(r"\btext\(f[\"'](\w+_)\{", source)))
    assert exact <= set(TEXTS)
    assert {key for key in TEXTS if key not in exact and not key.startswith(begun)} == set()


# ---------------------------------------------------------------- the shelf


def own(shelf: ModelStore) -> list[str]:
    """What is in the folder; the shipped models stand after it."""
    names, here = [path.name for path in shipped()], shelf.models()
    assert here[len(here) - len(names) :] == names
    return here[: len(here) - len(names)]


def test_the_shelf_names_what_is_in_the_folder(runs):
    shelf = ModelStore(runs)
    assert sorted(shelf.runs()) == sorted(own(shelf)) == ["newer", "older"]
    assert ModelStore(runs / "newer").models() == ["newer"]
    assert ModelStore(runs / "newer" / "model").models() == ["model"]
    assert own(ModelStore(runs / "missing")) == []


def test_a_classifier_is_a_run_but_no_model_to_draw_from(runs, tmp_path):
    shutil.copytree(runs / "newer", tmp_path / "knower")
    recipe = tmp_path / "knower" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('name = "diffusion"', 'name = "classifier"'))
    assert ModelStore(tmp_path).runs() == ["knower"] and own(ModelStore(tmp_path)) == []


@pytest.mark.parametrize("name", ["..", "../newer", "/etc", "", None, "newer/model"])
def test_the_shelf_gives_nothing_else(runs, name):
    with pytest.raises(AlphabarError):
        ModelStore(runs).load(name)


def test_one_model_is_in_memory(runs):
    shelf = ModelStore(runs)
    first = shelf.load("newer")
    assert shelf.load("newer") is first
    shelf.load("older")
    assert shelf.load("newer") is not first


def test_a_link_out_of_the_folder_is_not_followed(runs, tmp_path):
    (tmp_path / "link").symlink_to(runs / "newer")
    assert own(ModelStore(tmp_path)) == []


def test_a_held_lock_is_seen_and_left_alone(runs):
    run = Run(runs / "newer")
    assert not run.is_training()
    with run.lock():
        assert run.is_training()
    assert not run.is_training()


# ---------------------------------------------------------------- settings in pictures


def test_a_picture_is_drawn_again_from_its_settings(runs, tmp_path):
    model = load_model(runs / "newer")
    settings = sampling_settings(model, seed=5, steps=3, sampler="ddim")
    *_, drawn = sample(model, 4, settings)
    file = tmp_path / "third.png"
    Image.fromarray(drawn.pictures[2].numpy()).save(
        file, pnginfo=png_metadata({**settings.to_dict(), "position": 2})
    )
    about = read_png_metadata(file)
    again = SamplingSettings.from_dict(about)
    assert again == settings
    *_, alone = sample(model, 1, again, first=about["position"])
    assert (alone.result[0].int() - torch.from_numpy(np.array(Image.open(file))).int()).abs().max() <= 1


def test_other_files_carry_no_settings(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "list.png", pnginfo=png_metadata([]))  # type: ignore[arg-type]
    (tmp_path / "text.png").write_text("no picture")
    for name in ("plain.png", "list.png", "text.png", "missing.png"):
        with pytest.raises(AlphabarError, match="carries no settings"):
            read_png_metadata(tmp_path / name)
    with pytest.raises(UsageError, match="no settings of a sampling"):
        SamplingSettings.from_dict({"seed": 0, "steps": "many"})


# ---------------------------------------------------------------- archives


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_becomes_a_folder_of_classes(tmp_path):
    members = {"red/a.png": b"1", "blue/b.JPG": b"2", "__MACOSX/red/._a.png": b"x", ".hidden/c.png": b"x"}
    file = archive(tmp_path / "p.zip", {**members, "run.sh": b"x"})
    loose = tmp_path / "d.png"
    loose.write_bytes(b"3")
    assert unpack([file, loose], tmp_path / "out") == 3
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"red/a.png", "blue/b.JPG", "d.png"}


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "x/../../a.png",
        "/tmp/a.png",
        "..\\a.png",
        "C:\\a.png",
        "C:a.png",
        "\\\\host\\share\\a.png",
    ],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path, name):
    file = archive(tmp_path / "p.zip", {"good.png": b"1", name: b"2"})
    with pytest.raises(AlphabarError, match="outside itself"):
        unpack([file], tmp_path / "in" / "out")
    assert list((tmp_path / "in").rglob("*")) == []


def test_links_and_devices_in_an_archive_are_refused(tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
            file.writestr(info, "/etc/passwd")
        with pytest.raises(AlphabarError, match="link or a device"):
            unpack([tmp_path / "p.zip"], tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_bombs_stop_at_their_bounds(tmp_path):
    bomb = archive(tmp_path / "bomb.zip", {f"{i}.png": bytes(3 * 2**20) for i in range(4)})
    assert bomb.stat().st_size < 2**16
    with pytest.raises(AlphabarError, match="bomb"):
        unpack([bomb], tmp_path / "out", largest=2**22)
    with pytest.raises(AlphabarError, match="more than 3"):
        unpack([bomb], tmp_path / "out", most=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bomb.zip"]


def test_an_archive_that_lies_about_its_size_or_is_damaged(tmp_path):
    file = archive(tmp_path / "p.zip", {"a.png": bytes(1000)})
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[40:44] = b"\xff\xff\xff\xff"
    for content in (b"", b"PK", whole[:50], bytes(damaged)):
        file.write_bytes(content)
        with pytest.raises(AlphabarError):
            unpack([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the gate


def gate(tmp_path: Path, loopback: bool = True) -> RequestGuard:
    return RequestGuard(None, tmp_path, loopback)


def status(gate: RequestGuard, method: str, path: str, **headers: str) -> int:
    """What the gate alone says to a request; 200 where it lets it pass."""
    try:
        gate.check(
            method, path, {"host": "127.0.0.1:7860", **{k.replace("_", "-"): v for k, v in headers.items()}}
        )
    except Refused as refusal:
        return refusal.status
    return 200


def test_only_the_own_page_is_answered(tmp_path):
    g = gate(tmp_path)
    own, foreign = "http://127.0.0.1:7860", "http://evil.example"
    assert status(g, "POST", f"{API}/queue/join", origin=own, sec_fetch_site="same-origin") == 200
    assert status(g, "POST", f"{API}/queue/join", origin=foreign) == 403
    assert status(g, "POST", f"{API}/queue/join", origin="http://127.0.0.1:9999") == 403
    assert status(g, "POST", f"{API}/queue/join", origin="null") == 403
    assert status(g, "POST", f"{API}/upload", sec_fetch_site="cross-site") == 403
    assert status(g, "GET", f"{API}/queue/data", sec_fetch_site="same-site") == 403
    assert status(g, "GET", "/", sec_fetch_site="cross-site") == 200  # a link to the page
    assert status(g, "GET", "/", host="evil.example:7860") == 403  # a name that was made to lead here
    assert status(gate(tmp_path, loopback=False), "GET", "/", host="lab.example:7860") == 200


@pytest.mark.parametrize(
    "path",
    [
        f"{API}/proxy=http://127.0.0.1/x",
        f"{API}/stream/a/b/1/playlist.m3u8",
        f"{API}/component_server",
        "/monitoring",
        f"{API}/vibe-edit",
        f"{API}/run/draw",
        f"{API}/call/draw",
        f"{API}/openapi.json",
        f"{API}/process_recording",
        f"{API}/deep_link",
        f"{API}/file/etc/passwd",
        "/dev/reload",
        "/docs",
        f"{API}/run-history/records",
    ],
)
def test_routes_that_the_page_does_not_use_are_not_there(tmp_path, path):
    assert status(gate(tmp_path), "GET", path) == 404


def test_only_files_of_the_own_folder_are_served(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.png").write_bytes(b"1")
    (tmp_path / "secret").write_bytes(b"2")
    (own / "link.png").symlink_to(tmp_path / "secret")
    g = gate(own)
    assert status(g, "GET", f"{API}/file={own}/a.png") == 200
    for name in (
        "/etc/passwd", f"{own}/../secret", f"{own}/link.png", "a.png", "file:///etc/passwd", "http://127.0.0.1/",
        f"{own}/%2e%2e/secret", f"{own}/missing", "~/x", f"{own}/a.png\0", "C:\\x", "//etc/passwd", "",
    ):  # fmt: skip
        assert status(g, "GET", f"{API}/file={name}") in (403, 404), name


def test_a_job_that_names_an_address_is_refused():
    good = {"path": "/tmp/x/a.png", "url": f"http://127.0.0.1:7860{API}/file=/tmp/x/a.png", "meta": {}}
    check_job(json.dumps({"data": [good, 3, None, "http://is.only.text"]}).encode())
    for bad in (
        {"path": "http://169.254.169.254/latest"}, {"path": "file:///etc/passwd"}, {"url": "https://evil.example/a.png"},
        {"a": [{"b": {"path": "ftp://x/y"}}]},
    ):  # fmt: skip
        with pytest.raises(Refused):
            check_job(json.dumps({"data": [bad]}).encode())
    for body in (b"", b"{", b"[" * 100_000):
        with pytest.raises(Refused):
            check_job(body)


def test_a_body_without_a_length_is_bounded(tmp_path):
    sent = []

    async def receive():
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{API}/queue/join",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(gate(tmp_path)(scope, receive, send))
    assert sent[0]["status"] == 413
    sent.clear()
    scope["headers"].append((b"content-length", str(LARGEST_MESSAGE + 1).encode()))
    asyncio.run(gate(tmp_path)(scope, receive, send))
    assert sent[0]["status"] == 413


# ---------------------------------------------------------------- starting


def test_a_host_that_others_reach_needs_a_password(tmp_path):
    from alphabar.studio.app import serve

    with pytest.raises(UsageError, match="--password"):
        serve(tmp_path, host="0.0.0.0")


def test_without_gradio_one_line_names_the_extra(tmp_path, monkeypatch):
    from alphabar.studio.app import serve

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(AlphabarError, match=r"alphabar\[studio\]"):
        serve(tmp_path)


def test_names_of_new_runs(runs):
    trainings = TrainingJobs(ModelStore(runs))
    assert trainings.place("cars-2") == runs.resolve() / "cars-2"
    for name in ("", "../x", "a/b", ".hidden", "-x", "newer", "a" * 80, "--run"):
        with pytest.raises(UsageError):
            trainings.place(name)
    with pytest.raises(UsageError, match="folder of runs"):
        TrainingJobs(ModelStore(runs / "newer")).place("x")
    with pytest.raises(AlphabarError, match="no training"):
        trainings.pause("newer")


@pytest.mark.parametrize("leaves", [True, False])
def test_a_training_that_has_saved_may_take_a_moment_to_leave(leaves, runs, monkeypatch):
    monkeypatch.setattr("alphabar.studio.jobs.LEAVING", 20 if leaves else 0.1)
    trainings = TrainingJobs(ModelStore(runs))
    process = subprocess.Popen(["sleep", "0.5" if leaves else "60"])
    trainings.started["newer"] = TrainingJob(process, io.BytesIO(), "1m")
    try:
        if leaves:
            trainings.start(runs / "next", str(runs / "nothing"), "1s")
            assert trainings.started["next"].process.wait(60) == 2
            assert "no data called" in trainings.started["next"].last_line()
        else:
            with pytest.raises(AlphabarError, match="a training is running already"):
                trainings.start(runs / "next", str(runs / "nothing"), "1s")
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- painting


def test_small_pictures_are_painted_on_large_and_come_back_to_the_bit():
    pytest.importorskip("gradio")
    from alphabar.studio.tabs.restore import PAINTED, for_painting, from_painting, mask_of

    rng = np.random.default_rng(0)
    for size in ((16, 16), (32, 20), (64, 64), (200, 150), (241, 300), (600, 400)):
        image = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
        large = for_painting(image)
        assert max(large.size) <= max(PAINTED, *size)
        back = from_painting(large)
        assert back.size == size and np.array_equal(np.asarray(back), np.asarray(image))
    flat = Image.new("RGB", (600, 600), "white")
    assert from_painting(flat).size == (600, 600)
    layer = Image.new("RGBA", (480, 480))
    layer.paste((255, 0, 0, 255), (0, 0, 45, 480))
    mask = mask_of([layer], (16, 16))
    assert mask[:, :2].all() and not mask[:, 2:].any()


def test_one_thing_is_asked_for_or_every_kind_as_the_data_has_it():
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")

    page = SimpleNamespace(text=lambda key: key)
    model = load_model("cars64")
    usual = (4, 7, "unipc", 10, "standard_normal", 1.5, 0, 2, 1)
    _, settings = settings_from_controls(page, model, (*usual, "", "", "", ""))
    assert settings.conditions == model.label_frequencies and settings.guidance == 1.5
    _, settings = settings_from_controls(page, model, (*usual, "SUV", "", "", ""))
    assert settings.conditions == ({"body": "SUV"},)
