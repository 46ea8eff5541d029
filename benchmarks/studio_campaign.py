"""Does the studio answer whatever is sent to it with a sentence, and keep the files of its users apart?

    python benchmarks/studio_campaign.py OUT

Starts the studio with a tiny model and sends jobs that are made up from the page's own schema (``--calls``):
values of each control that fit, nearly fit or do not fit at all. Then it sends uploads of many kinds, lets 50
users generate at once, tries to read one user's file as another, and looks whether the server's memory comes
back to where it was. OUT keeps what is done: the same command goes on where it was stopped, with a new
server. Prints docs/results/studio_campaign.md; ends with an error where a fault was found.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from alphabar.runtime import Runtime
from alphabar.training.loop import begin, train
from common import argument_parser, print_command, print_paragraph, print_section, print_table
from training_child import tiny_dataset, tiny_recipe

API = "/gradio_api"
SECONDS = 90.0  # that a job may take
AT_ONCE = 8  # jobs of the first part
USERS = 50
SAVE_EVERY = 100  # calls
QUIET = 30.0  # seconds without any job before the memory is measured
MOST_GROWTH = 1.1  # of the memory, from the warm server to the end
MARK = b"THE-FILE-OF-ANOTHER-USER"
# What no answer may contain: the inside of the program, or of the machine.
INSIDE = re.compile(
    r"Traceback|File \"|alphabar-studio-|site-packages|Something failed inside|Algo falló dentro|Error\("
)
# What computes for long is called less often, and never with fitting values alone.
SLOW = re.compile(r"train|resume|evaluate|report|inspect|suggest|restore|upscale|inpaint|compare|play|edit")
ODD: tuple[Any, ...] = (
    None, "", " ", "x" * 5000, "../../etc/passwd", "<img src=x onerror=alert(1)>", "\0", "ñ😀", "-1", "1e999",
    "NaN", -1, 0, 1, 3, 10**9, -(10**9), 1e308, 0.5, True, [], [[]], {}, {"a": 1}, ["tiny"], ["missing"],
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"path": "x.png"}, {"background": None},
)  # fmt: skip


# ---------------------------------------------------------------- the server


def make_runs(folder: Path) -> None:
    """Pictures and a run of a tiny model, trained for a moment."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 255, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((24, 24)).save(pictures / f"{i:03d}.png")
    run = begin(folder / "runs" / "tiny", tiny_recipe("monitor.samples=4"))
    run.remember_data(str(pictures))
    for _ in train(tiny_dataset(pictures), run, images=32, runtime=Runtime()):
        pass
    shutil.copytree(folder / "runs" / "tiny", folder / "pristine")


class Server:
    """The studio as a process of its own.

    log: the file that it prints into. temporary: the folder of its temporary files. highest: megabytes that
    it had in memory at most, when `watch` looked.
    """

    def __init__(self, folder: Path):
        self.temporary, self.highest = folder / "temporary", 0.0
        shutil.rmtree(self.temporary, ignore_errors=True)  # of a server that was killed
        self.temporary.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{self.port}", folder / "server.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alphabar.cli", "studio", "runs", "--port", str(self.port)],
                cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.temporary)},
            )  # fmt: skip

    async def ready(self) -> None:
        """Wait until the page is there."""
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                try:
                    if (await client.get(f"{self.address}/config", timeout=30)).status_code == 200:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(0.5)
        raise SystemExit("the studio does not start")

    def memory(self) -> float:
        """Megabytes that the server has in memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    async def watch(self) -> None:
        """Look at its memory every second, until this task is cancelled."""
        while True:
            self.highest = max(self.highest, self.memory())
            await asyncio.sleep(1)

    async def memory_at_rest(self, client: httpx.AsyncClient, config: Mapping[str, Any]) -> float:
        """Megabytes in memory some time after the last job, which lets it load the small model."""
        adapt = next(each for each in config["dependencies"] if each.get("api_name") == "adapt")
        verdict = await call(client, {"fn_index": adapt["id"], "data": ["tiny"], "session_hash": "rest"})
        if verdict[0] != "done":
            raise SystemExit(f"the small model cannot be loaded: {verdict}")
        await asyncio.sleep(QUIET)
        return self.memory()

    def files(self) -> list[Path]:
        """All its temporary files."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


# ---------------------------------------------------------------- calls


def fitting(component: Mapping[str, Any], uploaded: list[str], rng: random.Random) -> Any:
    """A value that a control of the page may really send."""
    props, kind = component["props"], component["type"]
    if choices := props.get("choices"):
        picked = rng.choice(choices)[-1]
        return [picked] if props.get("multiselect") else picked
    if kind in ("slider", "number"):
        return rng.choice([0, 1, 2, 4, props.get("value")])
    if kind == "textbox":
        return rng.choice(["", "1, 2", "5s", "tiny", "a name", "blur:1", "64", props.get("value")])
    if kind in ("image", "file", "imageeditor") and uploaded and rng.random() < 0.7:
        file = {"path": rng.choice(uploaded), "meta": {"_type": "gradio.FileData"}}
        if kind == "imageeditor":
            return {"background": file, "layers": [file], "composite": file}
        return [file] if props.get("file_count") == "multiple" else file
    if kind == "checkbox":
        return rng.random() < 0.5
    return ["tiny"] if props.get("multiselect") else props.get("value")


def made_up(config: Mapping[str, Any], uploaded: list[str], rng: random.Random) -> dict[str, Any]:
    """A job: one of the page's functions, or a number that is none, with values for its controls."""
    components = {component["id"]: component for component in config["components"]}
    function = rng.choice([each for each in config["dependencies"] if each.get("backend_fn")])
    while SLOW.search(name := str(function.get("api_name"))) and rng.random() < 0.9:
        function = rng.choice([each for each in config["dependencies"] if each.get("backend_fn")])
    data = [
        rng.choice(ODD) if rng.random() < 0.25 else fitting(components[i], uploaded, rng)
        for i in function["inputs"]
    ]
    if SLOW.search(name) and data:
        data[rng.randrange(len(data))] = rng.choice(ODD)
    if rng.random() < 0.05:
        data = data[:-1] if rng.random() < 0.5 else [*data, rng.choice(ODD)]
    number = function["id"] if rng.random() < 0.97 else rng.choice([-1, 99999, None, "0", True, 2**70, 0.5])
    return {"fn_index": number, "data": data, "session_hash": f"s{rng.randrange(10**6)}"}


async def call(
    client: httpx.AsyncClient, job: Mapping[str, Any], seconds: float = SECONDS
) -> tuple[str, str]:
    """(verdict, what was said) of a job: done, said, and as faults inside, silent or late."""
    try:
        joined = await client.post(f"{API}/queue/join", json=job, timeout=SECONDS)
    except httpx.HTTPError as error:
        return "silent", repr(error)
    except (ValueError, OverflowError):
        return "said", "not JSON"  # JSON itself cannot say it
    if joined.status_code != 200:
        return judged(joined.text, joined.status_code)
    session = job["session_hash"]
    try:
        async with asyncio.timeout(seconds):
            place = f"{API}/queue/data?session_hash={session}"
            async with client.stream("GET", place, timeout=SECONDS) as stream:
                async for line in stream.aiter_lines():
                    event = json.loads(line[5:]) if line.startswith("data:") else {}
                    if event.get("msg") == "process_completed":
                        output = event["output"]
                        if event["success"]:
                            return (
                                ("inside", str(output)[:300])
                                if INSIDE.search(shown(output))
                                else ("done", "")
                            )
                        return judged(str(output.get("error") or ""), 200)
    except (TimeoutError, httpx.HTTPError) as error:
        ended = {"session_hash": session, "fn_index": job["fn_index"], "event_id": joined.json()["event_id"]}
        await client.post(f"{API}/cancel", json=ended, timeout=SECONDS)
        return "late", repr(error)
    return "silent", "the stream ended"


def shown(output: Any) -> str:
    """What a person would read of an output: the texts of the page, without addresses of files."""
    texts = [value for value in output.get("data", []) if isinstance(value, str)]
    return re.sub(r'(src|href)="[^"]*"', "", " ".join(texts))


def judged(text: str, status: int) -> tuple[str, str]:
    """The verdict of an answer that is no success."""
    if not text.strip() or INSIDE.search(text):
        return ("silent" if not text.strip() else "inside"), f"{status} {text[:300]}"
    return ("said" if status < 500 or '"detail"' in text else "inside"), text[:200]


# ---------------------------------------------------------------- uploads


def uploads() -> Iterator[tuple[str, str, bytes]]:
    """(what it is, name, bytes) of files of many kinds."""
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        yield f"{kind} picture", f"a.{kind.lower()}", encoded(picture, kind)
    whole = encoded(picture, "PNG")
    for mode in ("L", "LA", "P", "RGBA", "1", "I;16"):
        shape = picture.convert("L") if mode == "I;16" else picture
        yield f"picture of mode {mode}", "m.png", encoded(shape.convert(mode), "PNG")
    yield "cut PNG", "cut.png", whole[: len(whole) // 2]
    yield "flipped PNG", "flip.png", whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]
    yield "empty file", "empty.png", b""
    yield "text called PNG", "text.png", b"no picture"
    yield (
        "SVG with a script",
        "a.svg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    )
    yield "HTML", "a.html", b"<script>alert(1)</script>"
    yield "HEIC header", "a.heic", b"\0\0\0\x18ftypheic" + bytes(200)
    for name in ("../../a.png", "a\0b.png", "x" * 300 + ".png", "<b>.png", "ñ 😀.png", "", ".", "con.png"):
        yield f"name {name[:12]!r}", name, whole
    for members in ({"a.png": whole}, {"../a.png": whole}, {}, {"a.txt": b"x"}, {"red/a.png": whole}):
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        yield f"zip of {list(members)}", "a.zip", packed.getvalue()
    yield "cut zip", "cut.zip", packed.getvalue()[:20]


def encoded(picture: Image.Image, kind: str) -> bytes:
    """The bytes of a picture's file."""
    buffer = BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


async def upload(client: httpx.AsyncClient, name: str, content: bytes) -> tuple[str, str, list[str]]:
    """(verdict, what was said, the server's paths)."""
    try:
        answer = await client.post(f"{API}/upload", files={"files": (name, content)}, timeout=SECONDS)
    except (httpx.HTTPError, ValueError) as error:
        return "silent", repr(error), []
    if answer.status_code == 200:
        return "done", "", answer.json()
    return *judged(answer.text, answer.status_code), []


# ---------------------------------------------------------------- the parts


async def warm_up(client: httpx.AsyncClient, config: Mapping[str, Any]) -> None:
    """Each of the page's functions for a while, with values that fit: what is loaded at first is loaded."""
    components = {component["id"]: component for component in config["components"]}
    rng = random.Random(0)
    for function in config["dependencies"]:
        if function.get("backend_fn"):
            data = [fitting(components[i], [], rng) for i in function["inputs"]]
            job = {"fn_index": function["id"], "data": data, "session_hash": f"warm{function['id']}"}
            await call(client, job, 10)


async def all_calls(client: httpx.AsyncClient, server: Server, state: dict[str, Any], args: Any) -> None:
    """Jobs that are made up, a few at once, from where an earlier campaign has come to."""
    folder = args.out
    config = (await client.get("/config", timeout=SECONDS)).json()
    state["functions"] = sum(bool(each.get("backend_fn")) for each in config["dependencies"])
    files = list(uploads())
    uploaded: list[str] = []
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[dict[str, Any], str, str]:
        async with free:
            if not (folder / "runs" / "tiny").exists():  # a made-up job has deleted it, as it may
                shutil.copytree(folder / "pristine", folder / "runs" / "tiny", dirs_exist_ok=True)
            job = made_up(config, uploaded, random.Random(f"{args.seed}-{number}"))
            return job, *await call(client, job)

    while state["calls"] < args.calls:
        if not uploaded or state["calls"] % 1000 == 0:  # what is older than an hour is removed
            uploaded = [p for _, name, content in files for p in (await upload(client, name, content))[2]]
        numbers = range(state["calls"], min(state["calls"] + SAVE_EVERY, args.calls))
        for job, verdict, said in await asyncio.gather(*map(one, numbers)):
            note_verdict(state, "call", verdict, f"{job['fn_index']}: {said}", json.dumps(job)[:600])
        state["calls"] = numbers.stop
        state["memory"]["after"][str(numbers.stop)] = round(server.memory())
        save(folder, state)
        print(f"{state['calls']:,} calls {state['counts']}", file=sys.stderr, flush=True)


async def all_uploads(client: httpx.AsyncClient, server: Server, state: dict[str, Any]) -> None:
    """Every kind of file, and an upload that breaks off in the middle."""
    for kind, name, content in uploads():
        verdict, said, _ = await upload(client, name, content)
        note_verdict(state, "upload", verdict, f"{kind}: {said}", name[:80])
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(
        f"POST {API}/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data;"
        ' name="files"; filename="a.png"\r\n\r\n'.encode()
        + bytes(20_000_000)
    )
    await writer.drain()
    writer.close()
    del reader
    await asyncio.sleep(2)
    left = [p for p in server.files() if p.stat().st_size > 10**6]
    note_verdict(state, "broken upload", "done" if not left else "left behind", str(left), "")


async def many_users(client: httpx.AsyncClient, state: dict[str, Any], address: str) -> None:
    """50 users who each open the page, upload a file and generate at the same moment."""
    config = (await client.get("/config", timeout=SECONDS)).json()
    components = {component["id"]: component for component in config["components"]}
    function = next(each for each in config["dependencies"] if "generate" in str(each.get("api_name", "")))
    data = [components[i]["props"].get("value") for i in function["inputs"]]

    async def user(number: int) -> tuple[str, str]:
        async with httpx.AsyncClient(base_url=address, timeout=SECONDS) as own:
            page = await own.get("/es" if number % 2 else "/")
            if page.status_code != 200:
                return "silent", str(page.status_code)
            await upload(own, f"{number}.txt", MARK + str(number).encode())
            return await call(
                own, {"fn_index": function["id"], "data": data, "session_hash": f"user{number}"}
            )

    for verdict, said in await asyncio.gather(*(user(i) for i in range(USERS))):
        note_verdict(state, "user", verdict, said, "")


async def other_files(client: httpx.AsyncClient, server: Server, state: dict[str, Any]) -> None:
    """Try to read what the users have uploaded, without having been told its place."""
    places = {path.parent.parent for path in server.files() if path.suffix == ".txt"}
    guesses = ["", "/", "/.", "/..", "/*", "/0.txt", "/1.txt", "/%2e", "/../", "//0.txt", "/x/../0.txt"]
    paths = [f"{API}/file={place}{guess}" for place in places for guess in guesses]
    paths += [f"{API}/queue/data?session_hash=user{i}" for i in range(5)] + [f"{API}/info", "/config"]
    for path in paths:
        content = b""
        with suppress(TimeoutError, httpx.HTTPError):  # a stream of events goes on, or ends in the middle
            async with asyncio.timeout(10), client.stream("GET", path, timeout=15) as answer:
                async for part in answer.aiter_bytes():
                    content += part
        leaks = MARK in content
        note_verdict(state, "other's file", "leak" if leaks else "done", path if leaks else "", path[:120])


def note_verdict(state: dict[str, Any], part: str, verdict: str, said: str, example: str) -> None:
    """Count a verdict; of faults, keep the first of a kind."""
    counts = Counter(state["counts"].get(part, {}))
    counts[verdict] += 1
    state["counts"][part] = dict(counts)
    if verdict not in ("done", "said") and len(state["faults"]) < 60:
        state["faults"].append({"part": part, "verdict": verdict, "said": said, "job": example})


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write down what is done."""
    (folder / "state.json").write_text(json.dumps(state, indent=1))


async def campaign(args: Any) -> dict[str, Any]:
    """All parts, each once; calls go on from where they were."""
    folder = args.out
    if not (folder / "pristine").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_runs(folder)
    path = folder / "state.json"
    state = json.loads(path.read_text()) if path.exists() else {"calls": 0, "counts": {}, "faults": []}
    server = Server(folder)
    try:
        await server.ready()
        async with httpx.AsyncClient(
            base_url=server.address, limits=httpx.Limits(max_connections=100)
        ) as client:
            config = (await client.get("/config", timeout=SECONDS)).json()
            await warm_up(client, config)
            warm = await server.memory_at_rest(client, config)
            state["memory"] = {"warm": warm, "from": state["calls"], "after": {}}
            watching = asyncio.create_task(server.watch())
            await all_calls(client, server, state, args)
            # The other parts are short and begin again.
            state["counts"] = {"call": state["counts"]["call"]}
            state["faults"] = [fault for fault in state["faults"] if fault["part"] == "call"]
            await all_uploads(client, server, state)
            await many_users(client, state, server.address)
            await other_files(client, server, state)
            end = await server.memory_at_rest(client, config)
            watching.cancel()
            state["memory"] |= {"highest": server.highest, "end": end}
            back = "done" if end <= MOST_GROWTH * warm else "left behind"
            note_verdict(state, "memory", back, f"{warm:.0f} MB, at the end {end:.0f} MB", "")
    finally:
        state["exit"] = server.stop()
    state["tracebacks"] = server.log.read_text(errors="replace").count("Traceback")
    save(folder, state)
    return state


def main() -> None:
    """Run the campaign and print its page."""
    parser = argument_parser(__doc__)
    parser.add_argument("out", type=Path, help="folder for what is done")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out = args.out.resolve()
    state = asyncio.run(campaign(args))
    verdicts = ("done", "said", "inside", "silent", "late", "left behind", "leak")
    print_section(
        "# Studio campaign",
        "Does the studio answer whatever is sent to it with a sentence, and keep its users' files apart?",
        f"{state['calls']:,} jobs for the page's {state['functions']} functions (seed {args.seed}); a quarter"
        f" of all values are odd, and of what computes for long one value at least. {USERS} users open the"
        " page and generate at once. *Done* and *said* (a sentence that says what is wrong, in the page's"
        " language) are right. *Inside* (a path, a traceback or an unforeseen error is shown), *silent*,"
        f" *late* (over {SECONDS:.0f} s), *left behind* and *leak* are faults.",
    )
    print_table(
        ("part", *verdicts),
        [(part, *(str(counts.get(v, 0)) for v in verdicts)) for part, counts in state["counts"].items()],
    )
    memory = state["memory"]
    print_table(
        ("memory of the server", "MB"),
        [
            ("warm: each function was called once", f"{memory['warm']:.0f}"),
            *((f"after {int(n):,} jobs", f"{mb}") for n, mb in memory["after"].items() if int(n) % 1000 == 0),
            ("highest", f"{memory['highest']:.0f}"),
            (f"at the end, after {QUIET:.0f} s without a job", f"{memory['end']:.0f}"),
        ],
    )
    print_paragraph(
        f"The memory is that of the server of the last {state['calls'] - memory['from']:,} jobs, and *left"
        f" behind* where the end is more than {MOST_GROWTH} times the warm server's. The server ended with"
        f" code {state['exit']} and had printed {state['tracebacks']} tracebacks."
    )
    print_command()
    if state["faults"]:
        print(json.dumps(state["faults"], indent=1), file=sys.stderr)
        raise SystemExit(f"{len(state['faults'])} faults")


if __name__ == "__main__":
    main()
