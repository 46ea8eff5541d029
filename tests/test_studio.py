"""The studio without a browser: what it opens, what it unpacks, whom it answers."""

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.codecs import build_codec
from alphabar.codecs.png_metadata import png_metadata, read_png_metadata
from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.guidance import guidance_class
from alphabar.messages import LANGUAGES
from alphabar.progress import last
from alphabar.runs.model import load_model, shipped
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.sampling.bound import bind_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import SamplingSettings, sampling_settings
from alphabar.studio.answers import Refused, language_of, preferred_language
from alphabar.studio.jobs import TrainingJob, TrainingJobs
from alphabar.studio.login import WRONG_BY_ADDRESS, WRONG_IN_ALL, Login
from alphabar.studio.models import ModelStore
from alphabar.studio.security import API, MAX_MESSAGE, RequestGuard, check_job
from alphabar.studio.temporary import TemporaryFiles
from alphabar.studio.upload import unpack
from alphabar.training.loop import begin, train
from training_child import tiny_dataset, tiny_recipe


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


# ---------------------------------------------------------------- the model store


def own(models: ModelStore) -> list[str]:
    """What is in the folder; the shipped models stand after it."""
    names, here = [path.name for path in shipped()], models.models()
    assert here[len(here) - len(names) :] == names
    return here[: len(here) - len(names)]


def test_models_and_runs_of_a_folder(runs):
    models = ModelStore(runs)
    assert sorted(models.runs()) == sorted(own(models)) == ["newer", "older"]
    assert ModelStore(runs / "newer").models() == ["newer"]
    assert ModelStore(runs / "newer" / "model").models() == ["model"]
    assert own(ModelStore(runs / "missing")) == []


def test_a_classifier_is_a_run_but_no_model_that_generates(runs, tmp_path):
    shutil.copytree(runs / "newer", tmp_path / "classifier")
    recipe = tmp_path / "classifier" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('name = "diffusion"', 'name = "classifier"'))
    assert ModelStore(tmp_path).runs() == ["classifier"] and own(ModelStore(tmp_path)) == []


@pytest.mark.parametrize("name", ["..", "../newer", "/etc", "", None, "newer/model"])
def test_no_other_folder_is_loaded(runs, name):
    with pytest.raises(AlphabarError):
        ModelStore(runs).load(name)


def test_one_model_is_in_memory(runs):
    models = ModelStore(runs)
    first = models.load("newer")
    assert models.load("newer") is first
    models.load("older")
    assert models.load("newer") is not first


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


def test_a_sample_is_reproduced_from_its_settings(runs, tmp_path):
    model = load_model(runs / "newer")
    settings = sampling_settings(model, seed=5, steps=3, sampler="ddim")
    items = last(sample(model, 4, settings))
    file = tmp_path / "third.png"
    model.codec.write(items[2], file, {**settings.to_dict(), "position": 2})
    about = read_png_metadata(file)
    again = SamplingSettings.from_dict(about)
    assert again == settings
    alone = last(sample(model, 1, again, first=about["position"]))
    assert (alone[0].int() - torch.from_numpy(np.array(Image.open(file))).int()).abs().max() <= 1


def test_other_files_carry_no_settings(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "list.png", pnginfo=png_metadata([]))  # type: ignore[arg-type]
    (tmp_path / "text.png").write_text("no picture")
    for name in ("plain.png", "list.png", "text.png", "missing.png"):
        with pytest.raises(AlphabarError, match="carries no settings"):
            read_png_metadata(tmp_path / name)
    with pytest.raises(UsageError, match="not the settings of a sampling"):
        SamplingSettings.from_dict({"seed": 0, "steps": "many"})


# ---------------------------------------------------------------- archives


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_becomes_a_folder_of_classes(tmp_path):
    tables = {"metadata.jsonl": b"{}", "metadata.csv": b"a", "metadata.tsv": b"a", "red/c.jfif": b"4"}
    members = {
        **tables,
        "red/a.png": b"1",
        "blue/b.JPG": b"2",
        "__MACOSX/red/._a.png": b"x",
        ".hidden/c.png": b"x",
    }
    file = archive(tmp_path / "p.zip", {**members, "run.sh": b"x"})
    loose = tmp_path / "d.png"
    loose.write_bytes(b"3")
    assert unpack([file, loose], tmp_path / "out") == 7
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"red/a.png", "blue/b.JPG", "d.png", ".left_out.json", *tables}


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
        unpack([bomb], tmp_path / "out", max_bytes=2**22)
    with pytest.raises(AlphabarError, match="more than 3"):
        unpack([bomb], tmp_path / "out", max_files=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bomb.zip"]


def test_an_archive_that_is_damaged_or_states_a_wrong_size(tmp_path):
    file = archive(tmp_path / "p.zip", {"a.png": bytes(1000)})
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[40:44] = b"\xff\xff\xff\xff"
    for content in (b"", b"PK", whole[:50], bytes(damaged)):
        file.write_bytes(content)
        with pytest.raises(AlphabarError):
            unpack([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the guard


def guard(tmp_path: Path, loopback: bool = True, **options) -> RequestGuard:
    return RequestGuard(None, TemporaryFiles(tmp_path), loopback, **options)


def status(guard: RequestGuard, method: str, path: str, **headers: str) -> int:
    """The status with which the guard refuses a request; 200 where it lets it pass."""
    try:
        guard.check(
            method, path, {"host": "127.0.0.1:7860", **{k.replace("_", "-"): v for k, v in headers.items()}}
        )
    except Refused as refusal:
        return refusal.status
    return 200


def test_only_the_own_page_is_answered(tmp_path):
    g = guard(tmp_path)
    own, foreign = "http://127.0.0.1:7860", "http://evil.example"
    assert status(g, "POST", f"{API}/queue/join", origin=own, sec_fetch_site="same-origin") == 200
    assert status(g, "POST", f"{API}/queue/join", origin=foreign) == 403
    assert status(g, "POST", f"{API}/queue/join", origin="http://127.0.0.1:9999") == 403
    assert status(g, "POST", f"{API}/queue/join", origin="null") == 403
    assert status(g, "POST", f"{API}/upload", sec_fetch_site="cross-site") == 403
    assert status(g, "GET", f"{API}/queue/data", sec_fetch_site="same-site") == 403
    assert status(g, "GET", "/", sec_fetch_site="cross-site") == 200  # a link to the page
    assert status(g, "GET", "/", host="evil.example:7860") == 403  # a name that was made to lead here
    assert status(guard(tmp_path, loopback=False), "GET", "/", host="lab.example:7860") == 200


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
    assert status(guard(tmp_path), "GET", path) == 404


def test_only_files_of_the_own_folder_are_served(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.png").write_bytes(b"1")
    (tmp_path / "secret").write_bytes(b"2")
    (own / "link.png").symlink_to(tmp_path / "secret")
    g = guard(own)
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
    asyncio.run(guard(tmp_path)(scope, receive, send))
    assert sent[0]["status"] == 413
    sent.clear()
    scope["headers"].append((b"content-length", str(MAX_MESSAGE + 1).encode()))
    asyncio.run(guard(tmp_path)(scope, receive, send))
    assert sent[0]["status"] == 413


OUTSIDE = "https://lab.example/user/ana"


def test_behind_a_proxy_exactly_the_outside_address_is_answered(tmp_path):
    g = guard(tmp_path, origin=OUTSIDE)
    join, own = f"{API}/queue/join", "https://lab.example"
    assert status(g, "POST", join, host="lab.example", origin=own, sec_fetch_site="same-origin") == 200
    assert status(g, "POST", join, origin=own) == 200  # a proxy that rewrites the host
    for origin in (
        "http://lab.example",
        "https://lab.example:8443",
        "https://lab.example.evil.example",
        "null",
    ):
        assert status(g, "POST", join, host="lab.example", origin=origin) == 403, origin
    assert status(g, "POST", join, origin="http://127.0.0.1:7860") == 403
    assert status(g, "POST", join, host="lab.example", origin=own, sec_fetch_site="cross-site") == 403
    assert status(g, "GET", "/", host="evil.example") == 403
    assert status(guard(tmp_path), "GET", "/", host="lab.example") == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example@127.0.0.1", "127.0.0.1#.evil.example", "127.0.0.1:7860, evil.example", "", "0.0.0.0"],
)
def test_a_host_that_only_contains_this_machine_is_another(host, tmp_path):
    assert status(guard(tmp_path), "GET", "/", host=host) == 403


def answered(guard: RequestGuard, method: str, path: str, body: bytes = b"", query: str = "", **headers: str):
    """(status, headers, body) of the guard's whole answer. An application behind it says 200 and "page"."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    guard.app = guard.app or app
    given = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "client": ("192.0.2.7", 1),
    }
    scope["headers"] = [(name.encode(), value.encode()) for name, value in given.items()]
    asyncio.run(guard(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(event["body"] for event in sent[1:]).decode()


def test_the_page_needs_the_password_and_no_user_name(tmp_path):
    g = guard(tmp_path, login=Login("sésame", OUTSIDE))
    for path in (f"{API}/info", "/config", f"{API}/queue/data", "/glossary", "/assets/x.js"):
        assert answered(g, "GET", path)[0] == 401, path
    code, _, page = answered(g, "GET", "/es")
    assert code == 200 and 'lang="es"' in page and "Contraseña" in page and "username" not in page
    code, headers, page = answered(g, "POST", "/login", b"language=es&password=sesame")
    assert code == 403 and "Esa no es la contraseña" in page and "set-cookie" not in headers
    code, headers, _ = answered(g, "POST", "/login", b"language=es&password=s%C3%A9same")
    assert (code, headers["location"]) == (303, "es")
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/user/ana", "HttpOnly", "SameSite=Lax", "Secure"}
    assert answered(g, "GET", "/config", cookie=cookie)[2] == "page"
    assert answered(g, "GET", "/config", cookie=cookie[:-1])[0] == 401
    assert answered(g, "GET", "/logout", cookie=cookie)[0] == 303
    assert answered(g, "GET", "/config", cookie=cookie)[0] == 401


def test_wrong_passwords_are_limited_by_address_and_in_all(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("alphabar.studio.login.time.monotonic", lambda: now[0])
    login = Login("sesame")
    said = [login.attempt("x", "2001:db8::1").identifier for _ in range(WRONG_BY_ADDRESS)]
    assert set(said) == {"studio.login_wrong"}
    for address in ("2001:db8::1", "2001:db8::ffff"):  # one machine has a whole network of IPv6
        assert login.attempt("sesame", address).identifier == "studio.login_wait"
    assert "sesame" not in login.attempt(
        "sesame", "192.0.2.1"
    )  # another address may try, and gets its cookie
    for i in range(WRONG_IN_ALL):
        login.attempt("x", f"198.51.100.{i}")
    assert login.attempt("sesame", "192.0.2.2").identifier == "studio.login_wait"
    now[0] = 300.0
    assert "HttpOnly" in login.attempt("sesame", "2001:db8::1")


def test_the_browser_chooses_the_language_unless_the_person_does(tmp_path):
    g = guard(tmp_path)
    assert answered(g, "GET", "/", accept_language="es-BO,es;q=0.9,en;q=0.8")[1]["location"] == "es"
    assert answered(g, "GET", "/", query="language=en", accept_language="es-BO")[2] == "page"
    assert answered(g, "GET", "/", accept_language="en-US,es;q=0.5")[2] == "page"
    assert answered(g, "GET", "/es", accept_language="en-US")[2] == "page"
    assert [preferred_language(text) for text in ("de,es;q=0.3", "fr", "", "en;q=0.4,es;q=0.5", "*;q=x")] == [
        "es", "en", "en", "es", "en",
    ]  # fmt: skip
    assert language_of(f"{API}/queue/join", {"referer": "https://lab.example/user/ana/es"}) == "es"
    assert "Glosario" in answered(g, "GET", "/es/glossary")[2]


@pytest.mark.parametrize(
    ("failing", "said"), [(503, "Muchas personas"), (500, "no pudo responder"), (None, "no pudo")]
)
def test_a_server_that_fails_says_so_in_the_language_of_the_page(failing, said, tmp_path, capfd):
    async def app(scope, receive, send):
        if failing is None:
            raise KeyError(scope["path"])
        await send({"type": "http.response.start", "status": failing, "headers": []})
        await send({"type": "http.response.body", "body": b"Queue is full. Max size is 32."})

    g = guard(tmp_path, jobs={3})
    g.app = app
    job = json.dumps({"fn_index": 3, "data": []}).encode()
    code, _, body = answered(g, "POST", f"{API}/queue/join", job, referer="http://127.0.0.1/es")
    assert code == (failing or 500) and said in json.loads(body)["detail"]


@pytest.mark.parametrize("number", [4, -1, 99999, True, "3", None])
def test_a_function_that_the_page_does_not_have_is_refused(number):
    check_job(b'{"fn_index": 3}', {3})
    with pytest.raises(Refused) as refused:
        check_job(json.dumps({"fn_index": number}).encode(), {1, 3})
    assert refused.value.status == 400


def test_temporary_files_are_bounded_and_a_broken_upload_leaves_nothing(tmp_path):
    files = TemporaryFiles(tmp_path, quota=1000)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept.png").write_bytes(bytes(300))
    (tmp_path / "old.png").write_bytes(bytes(600))
    os.utime(tmp_path / "old.png", (0, 0))
    with files.upload(600) as room, files.upload(200) as second:  # the old file makes room for both
        assert room and not second and not (tmp_path / "old.png").exists()
        (tmp_path / "tmpabc123").write_bytes(bytes(600))
        (tmp_path / "tmpabc123.png").write_bytes(b"x")  # one of the page's own
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "kept.png", "tmpabc123.png"]
    with files.upload(600) as room:
        assert room


# ---------------------------------------------------------------- terms


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_term_has_a_name_and_a_tooltip(language):
    from alphabar.studio.elements import glossary_terms, term

    explained = glossary_terms(language)
    assert {"unipc", "dpmpp_2m", "snr", "kid", "nfe", "guidance", "eta"} <= set(explained)
    for key, (name, explanation) in explained.items():
        assert 0 < len(name) < 40 < len(explanation)
        html = term(key, language)
        assert f'glossary#{key}"' in html and 'role="tooltip"' in html
        assert ('href="es/glossary' in html) == (language == "es")


# ---------------------------------------------------------------- starting


def test_a_host_that_others_reach_needs_a_password(tmp_path):
    from alphabar.studio.server import serve

    with pytest.raises(UsageError, match="--password-file"):
        serve(tmp_path, host="0.0.0.0")
    with pytest.raises(UsageError, match="empty"):
        serve(tmp_path, host="0.0.0.0", password=" ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonexistent"], 2, "no folder nonexistent"),
        ([".", "--port", "99999"], 2, "from 1 to 65535"),
        ([".", "--port", "0"], 2, "from 1 to 65535"),
        ([".", "--port", "TAKEN"], 1, "already uses port"),
        ([".", "--host", "192.0.2.1"], 2, "--password-file"),
        ([".", "--host", "192.0.2.1", "--password-file", "secret"], 1, "Choose another --host"),
        ([".", "--password-file", "missing"], 2, "missing"),
        ([".", "--password-file", "empty"], 2, "is empty"),
        ([".", "--origin", "lab.example"], 2, "'lab.example'"),
        ([".", "--origin", "https://lab.example:port/"], 2, "outside address"),
        ([".", "--origin", "https://me@lab.example/"], 2, "outside address"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(arguments, code, said, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("sesame\n")
    (tmp_path / "empty").write_text("\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = [port if argument == "TAKEN" else argument for argument in arguments]
        got, _, err = call("studio", *arguments)
    assert got == code and said in err and len(err.strip().splitlines()) == 1


def test_the_password_comes_from_a_file_or_the_environment_and_is_not_passed_on(tmp_path, monkeypatch):
    from alphabar.cli.studio import read_password

    monkeypatch.setenv("ALPHABAR_PASSWORD", "one")
    assert read_password(None) == "one" and "ALPHABAR_PASSWORD" not in os.environ
    (tmp_path / "file").write_text("two words \n")
    assert read_password(tmp_path / "file") == "two words " and read_password(None) is None


def test_without_gradio_one_line_names_the_extra(tmp_path, monkeypatch):
    from alphabar.studio.server import serve

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with pytest.raises(AlphabarError, match=r"alphabar\[studio\]"):
        serve(tmp_path)
    assert os.environ["GRADIO_TEMP_DIR"] == "before"  # the folder of the page is gone


def test_names_of_new_runs(runs):
    models = ModelStore(runs)
    for name in ("cars-2", "my cats", "coches_ñandú", "2026.1"):
        assert models.free_place(name) == runs.resolve() / name
    for name in ("", "../x", "a/b", ".hidden", "-x", "newer", "a" * 80, "--run", "a\0", "a:b", " x", "<b>"):
        with pytest.raises(UsageError):
            models.free_place(name)
    with pytest.raises(UsageError, match="folder of runs"):
        ModelStore(runs / "newer").free_place("x")


def test_runs_are_renamed_and_deleted_with_their_pictures(runs, tmp_path):
    models = ModelStore(tmp_path)
    for name, pictures in (("one", "one"), ("two", "one"), ("three", "three")):
        shutil.copytree(runs / "newer", tmp_path / name)
        (models.pictures / pictures).mkdir(parents=True, exist_ok=True)
        Run(tmp_path / name).remember_data(str(models.pictures / pictures))
    assert models.disk_bytes("one") > 1000
    with Run(tmp_path / "one").lock():
        for action in (lambda: models.delete("one"), lambda: models.rename("one", "other")):
            with pytest.raises(AlphabarError, match="is training"):
                action()
    with pytest.raises(UsageError, match="already a run"):
        models.rename("one", "two")
    models.rename("one", "my cats")
    assert set(models.runs()) == {"my cats", "two", "three"}
    assert models.load("my cats").path == models.path / "my cats"
    models.delete("my cats")
    models.delete("three")
    # What another run was trained on stays.
    assert [p.name for p in models.pictures.iterdir()] == ["one"] and models.runs() == ["two"]
    for name in ("..", "missing", None, shipped()[0].name):
        with pytest.raises(AlphabarError):
            models.delete(name)


class Sleeping(TrainingJobs):
    """Trainings that are processes which only sleep."""

    def begin(self, name, seconds="60", **options):
        process = subprocess.Popen(["sleep", seconds])
        self.jobs[name] = TrainingJob(process, io.BytesIO(b"reading\nalphabar: half  left 5s\n"), **options)
        return self.jobs[name]


def test_pause_acts_on_the_run_that_trains_and_at_once(runs):
    jobs = Sleeping(ModelStore(runs))
    with pytest.raises(AlphabarError, match="No training"):
        jobs.pause()
    job = jobs.begin("older")
    assert jobs.running() == "older" and job.time_left() == "5s"
    with pytest.raises(AlphabarError, match="older is training already"):
        jobs.check_free()
    assert jobs.pause() == "older"  # before the process could say that it can be paused
    assert job.process.wait(60) == -signal.SIGTERM
    assert not job.failed and jobs.running() is None
    jobs.begin("newer", seconds="x").process.wait(60)
    assert jobs.jobs["newer"].failed


@pytest.mark.parametrize("ends", [True, False])
def test_a_training_that_has_saved_may_take_a_moment_to_end(ends, runs, monkeypatch):
    monkeypatch.setattr("alphabar.studio.jobs.SECONDS_TO_LEAVE", 20 if ends else 0.1)
    jobs = Sleeping(ModelStore(runs))
    process = jobs.begin("newer", "0.5" if ends else "60").process
    pictures = runs / "uploaded"
    pictures.mkdir(exist_ok=True)
    try:
        if ends:
            command = ["train", str(runs / "nothing"), "--budget", "1s"]
            job = jobs.launch(runs / "next", command, pictures=pictures)
            assert job.process.wait(60) == 2
            assert job.failed and str(runs / "nothing") in job.last_line()
            jobs.latest()
            assert not pictures.exists()  # a form that came to nothing leaves nothing behind
        else:
            with pytest.raises(AlphabarError, match="newer is training already"):
                jobs.launch(runs / "next", ["train", str(runs / "nothing"), "--budget", "1s"])
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- painting


def test_painting_on_an_enlarged_picture_marks_its_own_pixels():
    from alphabar.studio.pictures import SHOWN_SIDE, painted_mask, to_show

    rng = np.random.default_rng(0)
    for size in ((16, 16), (32, 20), (64, 64), (200, 150), (241, 300), (600, 400)):
        image = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
        large = to_show(image)
        assert max(large.size) <= max(SHOWN_SIDE, *size)
        assert np.array_equal(np.asarray(large.resize(size, Image.Resampling.NEAREST)), np.asarray(image))
    layer = Image.new("RGBA", (480, 480))
    layer.paste((255, 0, 0, 255), (0, 0, 45, 480))
    mask = painted_mask([layer], (16, 16))
    assert mask[:, :2].all() and not mask[:, 2:].any()


@pytest.mark.parametrize("kind", ["rgb", "clear", "deep"])
def test_a_reduced_picture_is_of_the_same_kind(kind, tmp_path):
    from alphabar.studio.pictures import picture_of, read_upload, reduced, size_of

    pixels = np.full((60, 80, 4), (200, 100, 50, 255), np.uint8)
    pixels[:30] = 0  # clear black, which must not darken what is opaque
    if kind == "deep":
        Image.fromarray(np.full((60, 80), 51_400, np.uint16)).save(tmp_path / "a.png")
    else:
        Image.fromarray(pixels if kind == "clear" else pixels[30:, :, :3].repeat(2, 0)).save(
            tmp_path / "a.png"
        )
    photo = read_upload(tmp_path / "a.png")
    small = reduced(photo, 20)
    assert reduced(photo, 80) is photo and size_of(small) == (20, 15)
    assert small.white == photo.white and (small.alpha is None) == (photo.alpha is None)
    shown = np.asarray(picture_of(small))
    if kind == "deep":
        assert (shown == 200).all()
    else:
        assert (np.abs(shown[10:, :, :3].astype(int) - (200, 100, 50)) <= 1).all()
        assert kind == "rgb" or ((shown[:5, :, 3] <= 1).all() and (shown[10:, :, 3] >= 254).all())


def test_what_is_no_picture_is_named_without_its_temporary_folder(tmp_path):
    from alphabar.studio.pictures import read_upload

    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(AlphabarError, match=r"^The file notes\.txt cannot be used"):
        read_upload(tmp_path / "notes.txt")


def test_fields_offer_what_goes_together():
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.conditioning.fields import Categorical
    from alphabar.studio.tabs.generate import names_beside

    field = Categorical("model", ("Civic", "M3", "Rare", "X5"))
    data = [
        {"make": "BMW", "model": "M3"},
        {"make": "BMW", "model": "X5"},
        {"make": "Honda", "model": "Civic"},
    ]
    assert names_beside(field, {"make": "BMW"}, data) == ["M3", "Rare", "X5"]
    assert names_beside(field, {}, data) == names_beside(field, {"make": "?"}, data) == list(field.names)


def test_the_page_says_errors_in_its_own_words(runs, tmp_path):
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.page import Page

    with gr.Blocks() as blocks:
        status = gr.HTML()
        page = Page("es", ModelStore(runs), tmp_path, blocks)

        def fails(error: Exception):
            yield "begun"
            raise error

        refused = UsageError("guidance.needs_condition", option="guidance")
        first, last_one = page.handler(fails, status)(refused)
        assert first == "begun" and "elija una primero" in last_one[status] and "--" not in last_one[status]
        *_, internal = page.handler(fails, status)(KeyError("x"))
        assert "KeyError" in internal[status] and 'role="alert"' in internal[status]
        with pytest.raises(gr.Error, match="elija una primero"):
            list(page.handler(fails)(refused))


def test_controls_become_sampling_settings():
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.controls import scalable_guidances, settings_from_controls

    model = load_model("cars64")
    scales = {name: guidance_class(name).neutral for name in scalable_guidances()}
    scales |= {"classifier_free": 1.5, "pag": 2.0}
    usual = (4, 7, "unipc", 10, "standard_normal", *scales.values())
    n, settings = settings_from_controls(model, (*usual, "", "", "", ""))
    assert (n, settings.seed, settings.steps) == (4, 7, 10)
    assert settings.conditions == model.label_frequencies
    assert {g["name"]: g["scale"] for g in settings.guidance} == {"classifier_free": 1.5, "pag": 2.0}
    _, settings = settings_from_controls(model, (*usual, "SUV", "", "", ""))
    assert settings.conditions == ({"body": "SUV"},)


def test_a_variation_of_a_picture_has_no_condition_but_a_chosen_one():
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.controls import scalable_guidances, settings_from_controls

    model = load_model("cars64")
    own = {"name": "classifier_free", "scale": 1.5}
    sampling = model.recipe.sampling.model_copy(update={"guidance": [own]})
    model = replace(model, recipe=model.recipe.model_copy(update={"sampling": sampling}))
    scales = {name: guidance_class(name).neutral for name in scalable_guidances()}

    def varied(scale: float, body: str) -> SamplingSettings:
        values = (4, 7, "unipc", 10, "standard_normal", *(scales | {"classifier_free": scale}).values())
        return settings_from_controls(model, (*values, body, "", "", ""), variation=True)[1]

    assert varied(1.5, "").conditions == () and varied(1.5, "SUV").conditions == ({"body": "SUV"},)
    bind_settings(model, varied(1.5, ""))  # the recipe's own scale refuses nothing
    assert [spec["scale"] for spec in varied(1.5, "SUV").guidance] == [1.5]
    with pytest.raises(UsageError):  # a scale that a person has chosen is not left out
        bind_settings(model, varied(2.0, ""))


# ---------------------------------------------------------------- tabs, without a browser


@pytest.fixture(scope="module", params=["data.channels=1", "data.channels=4", "data.size=[16,24]"])
def unusual(request, picture_folder, tmp_path_factory):
    """A page with a model that is grey, has alpha or is not square, and its name."""
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.page import Page

    folder = tmp_path_factory.mktemp("unusual")
    recipe = tiny_recipe(request.param)
    dataset = last(prepare(open_source(picture_folder), build_codec(recipe.data), "squash"))
    run = begin(folder / "unusual", recipe)
    run.remember_data(str(picture_folder))
    last(train(dataset, run, images=16, runtime=Runtime()))
    files = tmp_path_factory.mktemp("files")
    with gr.Blocks() as blocks:
        yield Page("en", ModelStore(folder), files, blocks), "unusual"


def test_unusual_models_generate_and_reproduce(unusual, tmp_path):
    import gradio as gr

    from alphabar.studio.tabs.generate import GenerateTab

    page, name = unusual
    model = page.models.load(name)
    tab = GenerateTab(page, gr.Dropdown(), gr.HTML())
    scales = [slider.value for slider in tab.scales.values()]
    values = (2, 0, "ddim", 2, "standard_normal", *scales)
    *_, done = tab.generate(name, False, None, 0.6, [], *values)
    shown = done[tab.shown]
    assert np.load(shown.previews).shape[:3] == (2, *model.codec.spatial)
    with zipfile.ZipFile(shown.archive) as packed:
        packed.extract("unusual-0-001.png", tmp_path)
    with Image.open(tmp_path / "unusual-0-001.png") as image:
        assert image.size == model.codec.spatial[::-1] and len(image.getbands()) == model.codec.channels
    *_, reproduced = tab.reproduce(str(tmp_path / "unusual-0-001.png"), name)
    assert "identical" in reproduced or "at most 1 of" in reproduced
    updates = tab.adapt(model)
    assert " × ".join(map(str, model.codec.spatial[::-1])) in updates[tab.model_facts]


def test_unusual_models_show_the_process_and_compare(unusual):
    import gradio as gr

    from alphabar.studio.tabs.compare import CompareTab
    from alphabar.studio.tabs.process import ProcessTab

    page, name = unusual
    tab = ProcessTab(page, gr.Dropdown())
    *_, (taken, _) = tab.take(name, "data", 0, None)
    assert tuple(taken[1].shape[1:]) == page.models.load(name).shape
    ((pictures, _, _, _),) = tab.show(name, taken, 0.5, 0)
    assert pictures.count("<img") == 4
    compare = CompareTab(page, gr.Dropdown())
    *_, done = compare.compare(name, "steps", [], "pag", "1, 2", "", 2, 0)
    assert done[compare.table].count("<img") == 4


def test_unusual_models_inpaint(unusual):
    import gradio as gr

    from alphabar.studio.tabs.restore import RestoreTab

    page, name = unusual
    height, width = page.models.load(name).codec.spatial
    tab = RestoreTab(page, gr.Dropdown())
    *_, updates = tab.panel.example(name, None, [], None)
    held = updates[tab.panel.held]
    layer = Image.new("RGBA", (96, 96))
    layer.paste((255, 0, 0, 255), (0, 0, 48, 96))
    *_, done = tab.inpaint(name, held, {"layers": [layer]}, 2, 3, 0, False, 64)
    samples = done[tab.restored].files
    assert len(samples) == 2
    with Image.open(held.file) as given, Image.open(samples[0]) as sample_image:
        assert given.size == sample_image.size == (width, height)
        known, restored = (np.asarray(im.convert("RGBA"))[:, width // 2 :] for im in (given, sample_image))
    assert np.array_equal(known, restored)
