"""Faults of the studio that people met, or could: each stays repaired. Without a browser."""

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import message
from alphabar.reporting.report import write_report
from alphabar.runs.model import load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.sampling.settings import sampling_settings
from alphabar.studio import memory
from alphabar.studio.answers import language_of
from alphabar.studio.jobs import TrainingJob, TrainingJobs
from alphabar.studio.login import network_of
from alphabar.studio.models import ModelStore
from alphabar.studio.security import API, RequestGuard
from alphabar.studio.temporary import SECONDS_KEPT, TemporaryFiles
from alphabar.studio.upload import unpacked
from alphabar.training.loop import begin, train
from alphabar.training.records import Limits
from delivered import deliver
from refusals import refused
from test_studio import answered, archive, guard, status
from training_child import tiny_dataset, tiny_recipe


@pytest.fixture(scope="module")
def trained(picture_folder, tmp_path_factory) -> Path:
    """A folder with one run of a tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    run = begin(folder / "tiny", tiny_recipe())
    run.remember_data(str(picture_folder))
    for _ in train(tiny_dataset(picture_folder), run, images=16, runtime=Runtime()):
        pass
    return folder


@pytest.fixture
def models(trained, tmp_path) -> ModelStore:
    """A store of its own with that run."""
    shutil.copytree(trained / "tiny", tmp_path / "opened" / "tiny")
    return ModelStore(tmp_path / "opened")


def page_of(models: ModelStore, tmp_path: Path, language: str = "en"):
    """A page and its blocks."""
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.page import Page

    files = tmp_path / "files"
    files.mkdir(exist_ok=True)
    return Page(language, models, files, gr.Blocks())


def ended(code: int = 0, printed: str = "", **options) -> TrainingJob:
    """A training that has ended with an exit code."""
    process = subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({code})"])
    process.wait(60)
    return TrainingJob(process, io.BytesIO(printed.encode()), **options)


def test_a_file_for_the_browser_has_a_name_that_fits(models, tmp_path):
    page = page_of(models, tmp_path)
    for name in ("x" * 250 + "-report.html", "a.b.png", ".png"):
        file = page.new_file(name)
        file.write_bytes(b"")
        assert file.name == name or (len(file.name) <= 255 and file.suffix == ".html")


# ---------------------------------------------------------------- uploaded pictures


@pytest.mark.parametrize("polled", [True, False])
def test_pictures_of_a_run_stay_when_it_is_renamed(models, polled):
    jobs = TrainingJobs(models)
    pictures = models.pictures / "tiny"
    pictures.mkdir(parents=True)
    models.run("tiny").remember_data(str(pictures))
    jobs.jobs["tiny"] = ended(pictures=pictures)
    if polled:
        jobs.latest()
    models.rename("tiny", "cats")
    jobs.latest()
    assert pictures.is_dir() and models.run("cats").data == str(pictures)


def test_pictures_that_another_run_uses_stay_when_the_first_is_deleted(models):
    jobs = TrainingJobs(models)
    pictures = models.pictures / "tiny"
    pictures.mkdir(parents=True)
    models.run("tiny").remember_data(str(pictures))
    shutil.copytree(models.path / "tiny", models.path / "second")
    jobs.jobs["tiny"] = ended(pictures=pictures)
    models.delete("tiny")
    jobs.latest()
    assert pictures.is_dir()


def test_what_a_deletion_left_goes_with_the_next(models):
    left = models.path / ".deleted-0123"
    left.mkdir()
    (left / "part").write_text("x")
    models.delete("tiny")
    assert list(models.path.iterdir()) == []


def form_of(models: ModelStore, tmp_path: Path):
    page = page_of(models, tmp_path)
    from alphabar.studio.tabs.training_form import TrainingForm

    with page.blocks:
        return TrainingForm(page, TrainingJobs(models))


def train_by(form, file: Path, name: str = "cats"):
    return list(form.train("upload", [str(file)], name, "budget", "5s", "", 16, "crop", ""))


def test_a_training_that_comes_too_late_leaves_no_pictures(models, tmp_path, monkeypatch):
    form = form_of(models, tmp_path)
    file = archive(tmp_path / "p.zip", {"a.png": b"1"})

    def late(*_):
        raise AlphabarError("studio.already_training", name="another")

    monkeypatch.setattr(form.jobs, "launch", late)
    with pytest.raises(AlphabarError, match="another is training already"):
        train_by(form, file)
    assert list(models.pictures.iterdir()) == []
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(AlphabarError):
        train_by(form, tmp_path / "bad.zip")
    assert list(models.pictures.iterdir()) == []


def test_two_trainings_of_one_name_have_pictures_of_their_own(models, tmp_path, monkeypatch):
    form = form_of(models, tmp_path)
    given = []
    monkeypatch.setattr(form.jobs, "launch", lambda run, command, language, pictures: given.append(pictures))
    train_by(form, archive(tmp_path / "p.zip", {"a.png": b"1"}))
    train_by(form, archive(tmp_path / "q.zip", {"b.png": b"1"}))
    assert [[file.name for file in folder.iterdir()] for folder in given] == [["a.png"], ["b.png"]]


def test_two_people_who_click_at_once_start_one_training(models, monkeypatch):
    jobs = TrainingJobs(models)
    begun, started = [], threading.Barrier(4)
    real = subprocess.Popen

    def slow(command, **options):
        time.sleep(0.05)  # so that every thread would have looked before one begins
        begun.append(real(["sleep", "60"]))
        return begun[-1]

    monkeypatch.setattr("alphabar.studio.jobs.subprocess.Popen", slow)
    monkeypatch.setattr("alphabar.studio.jobs.SECONDS_TO_LEAVE", 0.01)
    refused = []

    def click(i: int) -> None:
        started.wait()
        try:
            jobs.launch(models.path / f"run{i}", ["train"])
        except AlphabarError:
            refused.append(i)

    threads = [threading.Thread(target=click, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in begun:
        process.kill()
        process.wait()
    assert len(begun) == 1 and len(refused) == 3


# ---------------------------------------------------------------- temporary files


def file_of(path: Path, size: int, hours: float) -> Path:
    """A file that was used so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


def test_old_files_go_only_where_room_is_needed_and_the_oldest_first(tmp_path):
    files = TemporaryFiles(tmp_path, quota=1000)
    oldest = file_of(tmp_path / "a" / "x.png", 300, 3)
    old = file_of(tmp_path / "b" / "x.png", 300, 2)
    young = file_of(tmp_path / "c" / "x.png", 300, 0.5)
    with files.upload(100) as room:
        assert room and oldest.exists() and old.exists()
    with files.upload(200) as room:
        assert room and not oldest.parent.exists() and old.exists()
    with files.upload(800) as room:  # nor is what is in use taken for one that does not fit
        assert not room and young.exists()


def test_what_the_page_makes_is_bounded_without_an_upload(tmp_path, monkeypatch):
    monkeypatch.setattr("alphabar.studio.temporary.SECONDS_BETWEEN", 0.01)
    old, young = file_of(tmp_path / "a.zip", 900, 2), file_of(tmp_path / "b.zip", 900, 0)
    stop = threading.Event()
    thread = threading.Thread(target=TemporaryFiles(tmp_path, quota=1000).keep_room, args=(stop,))
    thread.start()
    for _ in range(1000):
        if not old.exists():
            break
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert not old.exists() and young.exists()


def test_a_picture_that_is_worked_on_counts_as_used(tmp_path):
    from PIL import Image

    from alphabar.studio.pictures import read_upload

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (0, 0))
    read_upload(tmp_path / "a.png")
    assert time.time() - (tmp_path / "a.png").stat().st_mtime < SECONDS_KEPT


def test_pictures_are_looked_at_within_the_room_of_the_temporary_files(tmp_path):
    file = archive(tmp_path / "p.zip", {f"{i}.png": bytes(2**20) for i in range(4)})
    folder = tmp_path / "files"
    folder.mkdir()
    with unpacked([file], TemporaryFiles(folder)) as pictures:
        assert len(list(pictures.iterdir())) == 4
    with (
        pytest.raises(AlphabarError, match="room to look at 2 MB"),
        unpacked([file], TemporaryFiles(folder, quota=2 * 2**20)),
    ):
        pass
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------- settings in a file


def test_a_file_cannot_name_a_model_outside_the_folder(models, tmp_path):
    from alphabar.studio.controls import saved_settings

    (tmp_path / "outside").mkdir()
    about = sampling_settings(load_model(models.path / "tiny"), seed=3).to_dict()
    said = set()
    for model in (tmp_path / "outside", tmp_path / "nowhere"):  # the answer does not tell them apart
        guidance = [{"name": "classifier", "model": str(model)}]
        with pytest.raises(AlphabarError) as refused:
            saved_settings({**about, "guidance": guidance}, models)
        said.add(refused.value.message.identifier)
    assert said == {"studio.unknown_model"}
    guidance = [{"name": "classifier", "model": "/elsewhere/tiny"}]
    settings, position = saved_settings({**about, "guidance": guidance, "position": 2}, models)
    assert settings.guidance[0]["model"] == str(models.path / "tiny") and position == 2


@pytest.mark.parametrize(
    "wrong", [{"steps": 5_000_000}, {"steps": 0}, {"position": -1}, {"position": "x"}, {"position": 2**60}]
)
def test_a_file_cannot_ask_for_what_the_page_would_not_take(wrong, models):
    from alphabar.studio.controls import saved_settings

    about = sampling_settings(load_model(models.path / "tiny"), seed=3).to_dict()
    with pytest.raises(UsageError):
        saved_settings({**about, **wrong}, models)


# ---------------------------------------------------------------- trainings


@pytest.mark.parametrize(("preparation", "trained_for"), [(0.0, 60.0), (300.0, 300.0), (300.0, 10.0)])
def test_a_resumed_run_trains_as_long_as_was_asked(preparation, trained_for, models, monkeypatch):
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio.tabs import runs as tab

    monkeypatch.setattr(tab, "seconds_trained", lambda run: trained_for)
    run = models.run("tiny")
    run.remember_preparation(preparation)
    limits = Limits(None, tab.budget_for(run, 120.0), run.preparation)
    assert limits.budget == pytest.approx(trained_for + 120)


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_time_left_is_read_in_the_language_of_the_page(language):
    left = message("cli.left").in_language(language)
    job = ended(printed=f"alphabar: 12/100  {left} 3m 20s\n", language=language)
    assert job.time_left() == "3m 20s"
    assert ended(printed="reading\n", language=language).time_left() == ""


@pytest.mark.parametrize(
    ("code", "pausing", "failed"),
    [
        (0, False, False),
        (0, True, False),
        (1, True, True),
        (1, False, True),
        (143, True, False),
        (143, False, True),
    ],
)
def test_a_pause_that_could_not_save_is_a_failure(code, pausing, failed):
    assert ended(code, pausing=pausing).failed == failed


def test_an_evaluation_that_cannot_be_kept_says_so(models, tmp_path, monkeypatch):
    page = page_of(models, tmp_path)
    from alphabar.studio.tabs import run_tools

    class Record:
        done, total, stage, result = 1, 1, "", object()

    monkeypatch.setattr(run_tools, "evaluate", lambda *_, **__: iter([Record()]))
    monkeypatch.setattr(run_tools, "evaluation_view", lambda *_: "")
    lost = message("evaluation.not_kept", problem="the disk is full")
    monkeypatch.setattr(run_tools, "add_to_run", lambda *_: [lost])
    with page.blocks:
        tools = run_tools.RunTools(page)
    *_, done = tools.evaluate(["tiny"], 10)
    said = done[tools.status]
    assert "the disk is full" in said and 'role="alert"' in said


def test_images_that_have_changed_do_not_judge_a_run(models, tmp_path, picture_folder):
    page = page_of(models, tmp_path)
    from alphabar.studio.tabs import run_tools

    others = tmp_path / "others"
    shutil.copytree(picture_folder, others)
    next(others.glob("*.png")).unlink()
    Run(models.path / "tiny").remember_data(str(others))
    with page.blocks:
        tools = run_tools.RunTools(page)
    with refused("studio.other_data", AlphabarError, name="tiny"):
        list(tools.evaluate(["tiny"], 10))


# ---------------------------------------------------------------- who is answered


@pytest.mark.parametrize("address", ["http://[", "http://[::::]", "http://[v1.x]", "//["])
def test_headers_that_are_no_addresses_are_refused_with_a_sentence(address, tmp_path):
    for g in (
        guard(tmp_path),
        guard(tmp_path, loopback=False),
        guard(tmp_path, origin="https://lab.example"),
    ):
        assert answered(g, "POST", f"{API}/queue/join", b"{}", origin=address)[0] == 403
    assert language_of("/", {"referer": address, "accept-language": "es"}) == "es"
    assert answered(guard(tmp_path), "GET", "/es", referer=address)[2] == "page"
    assert answered(guard(tmp_path), "GET", "/", host=address.removeprefix("http://"))[0] == 403


def test_an_origin_without_a_host_is_not_the_own_one(tmp_path):
    g = guard(tmp_path, loopback=False)
    assert status(g, "POST", f"{API}/queue/join", host="", origin="null") == 403


@pytest.mark.parametrize(
    "address", ["https://lab.example:443", "http://lab.example:80", "https://lab.example:8443"]
)
def test_the_usual_port_of_an_outside_address_is_left_out_as_browsers_do(address, tmp_path):
    from alphabar.studio.server import check_origin

    sent = address.removesuffix(":443").removesuffix(":80")
    assert check_origin(address + "/user/ana/") == sent + "/user/ana"
    g = RequestGuard(None, TemporaryFiles(tmp_path), True, origin=check_origin(address))
    assert status(g, "POST", f"{API}/queue/join", origin=sent) == 200


def test_clients_of_ipv4_are_counted_each_for_itself():
    mapped, other = "::ffff:192.0.2.1", "::ffff:198.51.100.7"
    assert network_of(mapped) == network_of("192.0.2.1") != network_of(other)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no terminals that hang up")
def test_a_closed_terminal_interrupts_unless_it_is_ignored():
    from alphabar.studio.server import interrupted_by_signals

    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        assert set(interrupted_by_signals()) == set(before)
        for number in before:
            with pytest.raises(KeyboardInterrupt):
                deliver(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        assert interrupted_by_signals() == [signal.SIGTERM]
        deliver(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no terminals that hang up")
def test_a_closed_terminal_ends_the_studio_as_ctrl_c_does(models, tmp_path, monkeypatch):
    """The temporary folder with people's pictures is gone, and trainings were asked to save."""
    pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from test_studio_page import launch

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process, _ = launch(models.path)
    assert len(list(tmp_path.glob("alphabar-studio-*"))) == 1
    process.send_signal(signal.SIGHUP)
    process.wait(90)
    assert list(tmp_path.glob("alphabar-studio-*")) == []


def test_a_distance_without_a_baseline_has_none_in_the_report(models):
    run = models.run("tiny")
    with open(run.log.path, "a") as log:
        log.write('{"kind": "distance", "images": 16, "kid": 0.5, "kid_error": 0.1, "n": 8}\n')
    text = write_report(run.path).read_text()
    assert message("reporting.card_baseline", baseline="–").in_language("en") in text


# ---------------------------------------------------------------- memory


def test_a_session_holds_its_values_and_no_copy_of_the_page():
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from gradio.state_holder import SessionState

    from alphabar.studio.sessions import Sessions

    with gr.Blocks() as blocks:
        state, text = gr.State([1]), gr.Textbox("a")
    blocks.state_session_capacity = 2
    sessions = Sessions()
    sessions.set_blocks(blocks)
    first = sessions["first"]
    first[state._id], first[text._id] = [2], gr.Textbox("b")
    first._update_config(text._id)
    first._update_value_in_config(text._id, "c" * 1000)
    assert sessions["first"] is first and first[state._id] == [2] and first[text._id].value == "b"
    assert sessions["second"][state._id] == [1] and sessions["second"][text._id].value == "a"
    assert not first.config_values and not sessions["second"].config_values
    plain = SessionState(blocks)  # Gradio itself still makes the copy, and in this place
    assert plain.config_values and callable(plain._update_config) and callable(plain._update_value_in_config)
    assert "third" not in sessions and sessions["third"] and "first" not in sessions


def test_the_server_keeps_small_sessions_and_no_statistics(tmp_path, monkeypatch):
    gr = pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")
    from alphabar.studio import server
    from alphabar.studio.sessions import Sessions

    monkeypatch.setattr(os, "environ", os.environ.copy())
    server.import_gradio()
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Textbox().change(lambda: None)
    server._launch(blocks, tmp_path, "127.0.0.1", None, None, None)
    try:
        assert isinstance(blocks.server_app.state_holder, Sessions)
        assert blocks.server_app.state_holder.capacity == 200
        queue = blocks._queue
        queue.event_analytics, queue.events_recorded = {"job": {"function": "f"}}, 1
        assert queue.compute_analytics_summary(list(queue.event_analytics.values())) == {"functions": {}}
    finally:
        blocks.close()


def test_freed_memory_is_given_back_until_the_server_ends(monkeypatch):
    stop, given = threading.Event(), []

    class Library:
        def __init__(self, name):
            self.malloc_trim = lambda left: (given.append(left), len(given) == 3 and stop.set())

    monkeypatch.setattr(memory, "SECONDS_BETWEEN", 0.001)
    monkeypatch.setattr(memory.ctypes, "CDLL", Library)
    memory.give_back(stop)
    assert given == [0, 0, 0]
    memory.share_heaps()  # this library has no such function, another system has no such library
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.give_back(threading.Event())


HEAPS = """
import ctypes, os, sys, threading
from alphabar.studio import memory
if sys.argv[1] == "shared":
    memory.share_heaps()
together = threading.Barrier(7)
def work():
    together.wait()
    kept = bytes(2000)
    together.wait()
for _ in range(6):
    threading.Thread(target=work).start()
together.wait()
together.wait()
library = ctypes.CDLL(None)
library.fdopen.restype, library.malloc_info.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
library.fclose.argtypes = (ctypes.c_void_p,)
said = library.fdopen(os.dup(1), b"w")
library.malloc_info(0, said)
library.fclose(said)
"""


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="of glibc"
)
def test_threads_share_two_heaps():
    """In a process of its own, since a heap that is there stays."""
    heaps = {}
    for name in ("shared", "own"):
        said = subprocess.run(
            [sys.executable, "-c", HEAPS, name], capture_output=True, check=True, timeout=300
        )
        heaps[name] = said.stdout.count(b"<heap nr")
    assert heaps["shared"] == 2 < heaps["own"]


def test_pages_are_made_one_at_a_time_and_a_slow_reader_holds_nobody_up(tmp_path):
    """Fifty that were made at once took a hundred megabytes."""
    making, most, read = [], [], []

    async def app(scope, receive, send):
        making.append(scope["path"])
        most.append(len(making))
        await asyncio.sleep(0.001)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})
        making.remove(scope["path"])

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask(place, slow):
        async def send(event):
            await slow.wait()
            read.append((place, event["type"]))

        headers = [(b"host", b"127.0.0.1"), (b"accept-language", b"en")]
        scope = {"type": "http", "method": "GET", "path": place, "query_string": b"", "headers": headers}
        await g(scope, receive, send)

    async def crowd():
        slow, fast = asyncio.Event(), asyncio.Event()
        fast.set()
        waiting = asyncio.create_task(ask("/", slow))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*(ask(place, fast) for place in ("/", "/es", "/config") * 5))
        assert len(read) == 2 * 15 and max(most) == 1
        slow.set()
        await waiting

    g = guard(tmp_path)
    g.app = app
    asyncio.run(crowd())
    assert len(read) == 2 * 16
