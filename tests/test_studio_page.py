"""The studio as people use it: the command, a real browser, and attacks on it."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.runtime import Runtime
from alphabar.training.loop import begin, train
from training_child import tiny_dataset, tiny_recipe

pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
API = "/gradio_api"
# Gradio calls it an error that the streams of a page that is left break off.
LEAVING = re.compile(r"abort|errored out|network", re.I)


@pytest.fixture(scope="module")
def folder(picture_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("opened")
    run = begin(folder / "tiny", tiny_recipe("monitor.samples=4"))
    run.remember_data(str(picture_folder))
    for _ in train(tiny_dataset(picture_folder), run, images=160, runtime=Runtime()):
        pass
    return folder


def launch(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The command, and the address that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "alphabar.cli", "studio", str(folder), "--port", str(port), *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background job ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "studio is at http" in line, line + process.stderr.read()
    # What it prints later is read, so that it never waits for a reader.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return process, line.split(" at ")[1].split()[0].rstrip("/")


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(90)  # a training that it started may have to save
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    process, address = launch(folder)
    yield address
    stop(process)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="driving the page needs playwright")
    if CHROMIUM is None:
        pytest.skip("driving the page needs Chromium, which is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def ready_page(browser, address: str) -> Iterator:
    """The page, ready, and what its console calls an error; it is closed at the end."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#model-facts :text('16 × 16')")
    yield page, errors
    page.close()


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator:
    """Loading the page takes seconds: all tests share it."""
    yield from ready_page(browser, address)


@pytest.fixture
def page(opened) -> Iterator:
    """The page; whatever its console calls an error fails the test."""
    page, errors = opened
    yield page
    # In one go in the page: a message that leaves by itself meanwhile cannot be clicked.
    page.evaluate("document.querySelectorAll('.toast-close').forEach((close) => close.click())")
    found = errors.copy()
    errors.clear()
    assert found == []


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def unfold(page, accordion: str) -> None:
    """Open what is folded; the tests share the page."""
    if not page.locator(f"{accordion} > :last-child").is_visible():
        page.locator(f"{accordion} > button").click()


def set_slider(page, selector: str, value: float) -> None:
    field = page.locator(f"{selector} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def picture_of(page, source: str) -> Image.Image:
    """What an <img> shows: a data: address or a file of the server."""
    if source.startswith("data:"):
        return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    response = page.request.get(source)
    assert response.ok
    return Image.open(io.BytesIO(response.body()))


# ---------------------------------------------------------------- what people do


def test_generate_and_reproduce_a_saved_sample(page, tmp_path):
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 4)
    page.fill("#seed input", "7")
    page.click("#generate-button")
    page.wait_for_selector("#samples a")
    assert page.locator("#samples a").count() == 16
    page.locator("#samples a").nth(2).click()
    with page.expect_download() as download:
        page.click("dialog >> text=Save this sample")
    page.click("dialog >> text=Close")
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    about = read_png_metadata(saved)
    assert (about["model"], about["seed"], about["steps"], about["position"]) == ("tiny", 7, 4, 2)
    page.click("#reproduce button")
    page.set_input_files("#reproduce-file input[type=file]", saved)
    page.wait_for_selector("#reproduced .figures img")
    verdict = page.inner_text("#reproduced p.note")
    assert "identical" in verdict or int(re.search(r"at most (\d+)", verdict)[1]) <= 1
    other = tmp_path / "other.png"
    Image.new("RGB", (16, 16)).save(other)
    page.click("#reproduce-file button[aria-label*='lear'], #reproduce-file button[aria-label*='emove']")
    page.set_input_files("#reproduce-file input[type=file]", other)
    page.wait_for_selector("text=carries no settings")


def test_cancel_ends_the_sampling(page):
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 300)
    set_slider(page, "#number", 64)  # long enough that a slow browser still comes in time to cancel it
    page.click("#generate-button")
    page.wait_for_selector("#samples img")

    def late(route) -> None:
        time.sleep(1)
        route.continue_()

    page.route("**/cancel", late)  # a server at work answers late, and the page must not say so too soon
    page.click("#generate-cancel")
    page.wait_for_selector("#generate-status :text('Cancelled')")
    page.unroute("**/cancel")
    set_slider(page, "#steps", 2)
    set_slider(page, "#number", 2)
    page.click("#generate-button")  # the model is free again
    page.wait_for_selector("#generate-status :text('Click on one')")


def test_closing_the_tab_ends_the_sampling(browser, page, address):
    tab(page, "Generate")
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#model-facts :text('16 × 16')")
    unfold(page, "#generate-settings")
    unfold(other, "#generate-settings")
    set_slider(page, "#steps", 2)
    set_slider(other, "#steps", 300)
    began = time.monotonic()
    other.click("#generate-button")
    other.wait_for_function(
        "() => +(document.querySelector('#generate-status').innerText.match(/step (\\d+)/) || [0, 0])[1]"
        " >= 30"
    )
    thirty = time.monotonic() - began
    page.fill("#seed input", "61")
    other.close()
    began = time.monotonic()
    page.click("#generate-button")
    page.wait_for_selector("#generate-status :text('the seed 61')")
    assert time.monotonic() - began < max(4 * thirty, 6)  # what was left would have taken nine times as long


# The end of a stream of answers, and nothing before it, reaches the page late.
SLOW_END = """const now = window.fetch;
window.fetch = async (...request) => {
    const response = await now(...request);
    if (!/queue.data/.test(request[0].url ?? request[0])) return response;
    const late = new TransformStream({ async transform(part, out) {
        const text = new TextDecoder().decode(part);
        const end = text.lastIndexOf("data:", text.indexOf("close_stream"));
        if (!text.includes("close_stream")) return out.enqueue(part);
        out.enqueue(new TextEncoder().encode(text.slice(0, end)));
        window.ending = true;
        await new Promise((resolve) => setTimeout(resolve, 1500));
        window.ending = false;
        out.enqueue(new TextEncoder().encode(text.slice(end)));
    } });
    return new Response(response.body.pipeThrough(late), response);
};"""


def test_a_job_is_answered_that_comes_when_the_one_before_it_ends(browser, address):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.add_init_script(SLOW_END)
    page.goto(address)
    page.wait_for_selector("#model-facts :text('16 × 16')")
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 2)
    set_slider(page, "#number", 1)
    for seed in ("51", "52"):
        page.fill("#seed input", seed)
        page.wait_for_function("!window.ending")
        page.click("#generate-button")
        page.wait_for_selector(f"#generate-status :text('the seed {seed}')")
        page.wait_for_function("window.ending")
        page.fill("#seed input", f"{seed}0")
        page.click("#generate-button")
        page.wait_for_selector(f"#generate-status :text('the seed {seed}0')")
    page.close()


@pytest.mark.slow
def test_compare_and_data(page):
    tab(page, "Compare")
    page.fill("#values input, #values textarea", "2, 4")
    page.get_by_label("steps", exact=True).check()
    page.wait_for_timeout(500)
    page.fill("#values input, #values textarea", "2, 4")
    page.click("#compare-button")
    page.wait_for_selector("#compare-status :text('same initial noise')")
    assert page.locator("#compare-table img").count() == 8
    tab(page, "Data")
    page.click("#inspect-button")
    page.wait_for_selector("#data-report .fact")
    assert "40" in page.inner_text("#data-report .fact:first-child")


def test_spanish_and_a_telephone(page, opened):
    _, errors = opened

    def leave(link: str, ready: str) -> None:
        """To another page."""
        page.click(f"text={link}")
        page.wait_for_selector(ready)
        errors[:] = [error for error in errors if not LEAVING.search(error)]

    tab(page, "Data")  # the tab that is open stays open, which says that the page has arrived
    page.set_viewport_size({"width": 390, "height": 844})
    browser = page.context.new_cdp_session(page)
    browser.send("Emulation.setCPUThrottlingRate", {"rate": 6})  # telephones are slow
    leave("Español", "#inspect-button:has-text('Inspeccionar')")
    browser.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    assert page.evaluate("document.documentElement.lang") == "es"
    for name in ("Generar", "Proceso", "Restaurar", "Entrenamientos", "Comparar", "Datos"):
        if not page.get_by_role("tab", name=name, exact=True).is_visible():
            page.locator(".overflow-menu button").first.click()
            page.locator(f".overflow-dropdown button:has-text('{name}')").click()
        else:
            tab(page, name)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    leave("English", "#inspect-button:has-text('Inspect')")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_changing_the_language_loses_nothing(page, opened):
    _, errors = opened
    tab(page, "Generate")
    unfold(page, "#generate-settings")
    set_slider(page, "#steps", 3)
    set_slider(page, "#number", 2)
    page.fill("#seed input", "41")
    page.click("#generate-button")
    page.wait_for_selector("#generate-status :text('the seed 41')")
    page.wait_for_selector("#samples a[download='tiny-41-000.png']")
    before = page.locator("#samples a").first.get_attribute("href")
    tab(page, "Compare")
    page.get_by_label("steps", exact=True).check()
    page.wait_for_function("document.querySelector('#values input, #values textarea').value.includes('50')")
    page.fill("#values input, #values textarea", "2, 3")
    page.click("#compare-button")
    page.wait_for_selector("#compare-status :text('same initial noise')")
    for link, compare, generate, said, values in (
        ("Español", "Comparar", "Generar", "la semilla 41", "2, 3"),
        ("English", "Compare", "Generate", "the seed 41", "2, 3"),
    ):
        page.click(f"text={link}")
        page.wait_for_selector(f"#compare-button:has-text('{compare}')")
        page.wait_for_selector("#compare-table img")  # the tab that was open, and its table
        assert page.locator("#compare-table img").count() == 8
        assert page.input_value("#values input, #values textarea") == values
        tab(page, generate)
        page.wait_for_selector(f"#generate-status :text('{said}')")
        page.wait_for_selector("#samples a")
        assert page.locator("#samples a").first.get_attribute("href") == before
        assert page.input_value("#seed input") == "41" and not page.is_checked("#seed-new input")
        unfold(page, "#generate-settings")
        assert page.input_value("#steps input[type=number]") == "3"
        tab(page, compare)
    errors[:] = [error for error in errors if not LEAVING.search(error)]


# Every event of the Spanish page reaches the server three seconds late.
LATE = """if (/es$/.test(location.pathname)) {
    const now = window.fetch;
    window.fetch = async (address, ...options) => {
        const joins = /queue.join/.test(address.url ?? address);
        if (joins) await new Promise((resolve) => setTimeout(resolve, 3000));
        return now(address, ...options);
    };
}"""


def test_a_late_arrival_takes_nothing_from_a_person(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.add_init_script(LATE)
    page.goto(f"{address}/?language=en")
    page.wait_for_selector("#model-facts :text('16 × 16')")
    page.fill("#seed input", "41")
    tab(page, "Compare")
    page.click("text=Español")
    page.wait_for_selector("#compare-button:has-text('Comparar')")  # opened before the server has answered
    assert "16 × 16" not in page.inner_text("#model-facts")
    assert page.locator("#tab-compare").evaluate("panel => panel.inert")  # what is typed now would be lost
    tab(page, "Datos")
    page.wait_for_selector("#model-facts :text('16 × 16')")
    page.wait_for_timeout(500)
    assert page.is_visible("#inspect-button") and not page.is_visible("#compare-button")
    assert not page.locator("#tab-data").evaluate("panel => panel.inert")
    tab(page, "Generar")
    assert page.input_value("#seed input") == "41"
    page.close()


# ---------------------------------------------------------------- attacks


def request(
    address: str, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """One request, its path as it stands."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionError, http.client.HTTPException):
        return 0, b""  # refused while the body was still on its way
    finally:
        connection.close()


def test_no_payload_reads_a_file_outside(address, folder, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("THE-SECRET")
    (folder / "link.txt").symlink_to(secret)
    toml = folder / "tiny" / "recipe.toml"
    targets = [
        str(secret),
        "/etc/passwd",
        "/proc/self/environ",
        str(toml),
        str(folder / "link.txt"),
        sys.executable,
    ]
    ways = [
        "{}", "/{}", "..{}", "../../../../../../../..{}", "%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e{}",
        "....//....//..{}", "..\\..\\..{}", "/tmp/..{}", "file://{}", "~{}", "{}%00.png", "./{}",
    ]  # fmt: skip
    ends = [f"{API}/file=", "/file=", "/static/", "/assets/", f"{API}/file/"]
    urls = [
        address + "/",
        "http://169.254.169.254/latest/meta-data",
        "//evil.example/x",
        "ftp://evil.example/x",
    ]
    paths = [end + way.format(target) for end in ends for way in ways for target in targets]
    paths += [quote(path, safe="/=") for path in paths[::7]]
    paths += [end + url for end in (f"{API}/file=", f"{API}/proxy=", "/proxy=") for url in urls]
    assert len(paths) >= 200
    hidden = (b"THE-SECRET", b"root:", b"ALPHABAR_CACHE", b"[network]", b"\x7fELF")
    for path in paths:
        status, body = request(address, "GET", path.replace("\0", "%00"))
        assert status in (400, 403, 404) and not any(word in body for word in hidden), path
    (folder / "link.txt").unlink()


def test_another_page_starts_nothing(address):
    job = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
    ):  # fmt: skip
        for path in (f"{API}/queue/join", f"{API}/upload", f"{API}/cancel", "/login"):
            kind = {"Content_Type": "text/plain"}
            assert request(address, "POST", path, job, **headers, **kind)[0] == 403, (headers, path)


def test_a_foreign_page_in_a_real_browser_starts_nothing(browser, address, folder):
    page = browser.new_page()
    page.goto("data:text/html,<p>evil</p>")
    said = page.evaluate(
        """async address => { try {
            const answer = await fetch(address + '/gradio_api/queue/join', {method: 'POST', mode: 'no-cors',
                body: JSON.stringify({data: [], fn_index: 0, session_hash: 'x'})});
            return answer.type } catch (error) { return 'refused' } }""",
        address,
    )
    page.close()
    assert said in ("opaque", "refused")  # the page cannot even see the 403


def bomb(side: int) -> bytes:
    """A PNG of side × side white pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_is_one_sentence(page, tmp_path):
    file = tmp_path / "bomb.png"
    file.write_bytes(bomb(24_000))
    assert file.stat().st_size < 200_000
    tab(page, "Restore")
    page.set_input_files("#picture-upload input[type=file]", file)
    page.wait_for_selector("#picture-facts :text('bomb.png cannot be used')")
    assert "/" not in page.inner_text("#picture-facts")


def test_hostile_archives_large_uploads_and_many_jobs_leave_it_serving(address, page, folder, tmp_path):
    status, _ = request(address, "POST", f"{API}/upload", b"", Content_Type="multipart/form-data; boundary=x")
    assert status < 500
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.putrequest("POST", f"{API}/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()

    job = json.dumps({"data": ["tiny"], "fn_index": 0, "session_hash": "many"}).encode()
    answers: list[int] = []
    kind = {"Content_Type": "application/json"}
    threads = [
        threading.Thread(
            target=lambda: answers.append(request(address, "POST", f"{API}/queue/join", job, **kind)[0])
        )
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50 and not any(500 <= answer < 503 for answer in answers)

    tab(page, "Data")
    hostile = tmp_path / "hostile.zip"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../../escaped.png", b"x")
    page.click("#data-choice input")
    page.get_by_role("option", name="my pictures").click()
    page.set_input_files("#data-files input[type=file]", hostile)
    page.wait_for_selector("#data-files :text('hostile')")
    page.click("#inspect-button")
    page.wait_for_selector("text=outside itself")
    assert not list(tmp_path.parent.rglob("escaped.png"))

    began = time.monotonic()
    assert request(address, "GET", "/")[0] == 200 and time.monotonic() - began < 10


@pytest.mark.slow
def test_beyond_this_machine_the_page_asks_for_the_password(folder, browser, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("sesame")
    process, address = launch(folder, "--host", "0.0.0.0", "--password-file", str(secret))
    try:
        address = address.replace("0.0.0.0", "127.0.0.1")
        for path in (f"{API}/info", "/config", f"{API}/queue/data?session_hash=x", f"{API}/file=/etc/passwd"):
            assert request(address, "GET", path)[0] in (401, 403), path
        job = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
        assert request(address, "POST", f"{API}/queue/join", job, Content_Type="application/json")[0] == 401
        page = browser.new_page()
        page.goto(address)
        page.fill("#password", "wrong")
        page.click("button")
        page.wait_for_selector("text=This is not the password")
        page.fill("#password", "sesame")
        page.click("button")
        page.wait_for_selector("#model-facts :text('16 × 16')")
        page.close()
    finally:
        stop(process)
