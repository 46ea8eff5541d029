"""Do inputs that failed in people's hands, with comparable tools or with alphabar, work now?

    python benchmarks/field_cases.py            # all cases; ends with an error where one falls short
    python benchmarks/field_cases.py C19 C85    # some of them

Every case comes from a report that users of a comparable tool filed in public, or is a close variant of one.
The script makes each case's input in a folder of its own, runs alphabar's commands on it, checks what comes
out, and prints docs/results/field_cases.md. Takes about ten minutes on two cores. C52 needs the right to
mount a file system, C88 and C89 need the extra "studio"; where these are missing, the case is not tried.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

import alphabar.evaluation.evaluate
import alphabar.reporting.report
import alphabar.restoration.restore
import alphabar.training.launch  # noqa: F401  all that commands load
from alphabar.cli.__main__ import main as main_command
from alphabar.codecs.base import Unreadable
from alphabar.codecs.image_files import read_image
from alphabar.data.sources import open_source
from alphabar.runs.model import load_model
from common import argument_parser, note, print_command, print_row, print_section
from hostile import RAMP, deep_grey_png, tiff

TINY = (
    *("--images", "96", "--set", "data.size=16", "--set", "batch=16", "--set", "network.widths=[32,32]"),
    *("--set", "network.head_dim=32", "--set", "monitor.samples=4", "--set", "monitor.levels=0"),
)
QUIET = ("--set", "monitor.distance=0")
SECONDS = 900.0  # that one command may take
FORK = multiprocessing.get_context("fork")
GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "train.md"


class Answer(NamedTuple):
    """What a command did. said: the last line for the person; result: its JSON, where it was asked for."""

    code: int
    text: str
    result: dict[str, Any]

    @property
    def said(self) -> str:
        """The last line that the command printed for a person."""
        return next((line for line in reversed(self.text.splitlines()) if line.strip()), "")

    def line(self, word: str) -> str:
        """The first line with a word in it; empty where there is none."""
        return next((line for line in self.text.splitlines() if word in line), "")


class Folder:
    """A case's own folder, in which its inputs are made and its commands run."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def pictures(self, name: str, n: int, first: int = 0, side: int | None = None) -> Path:
        """A folder with n pictures p000.png …; pictures of different numbers differ."""
        folder = self / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(first, first + n):
            size = (side, side) if side else (48, 40)
            picture(i, *size).save(folder / f"p{i:03d}.png")
        return folder

    def table(self, name: str, text: str, **options: Any) -> None:
        """A table beside pictures."""
        (self / name).write_text(text, **options)

    def run(self, *words: object) -> Answer:
        """Run a command of alphabar; its words may be paths relative to the folder.

        It runs in a process of its own that has everything loaded, which is what takes longest.
        """
        out, err = self.path.with_suffix(".out"), self.path.with_suffix(".err")
        process = FORK.Process(target=_command, args=(self.path, list(map(str, words)), out, err))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        return self._answer(process.exitcode or 0, out.read_text(), err.read_text(), "--json" in words)

    def _answer(self, code: int, out: str, err: str, as_json: bool) -> Answer:
        result = json.loads(out.splitlines()[-1]) if as_json and out.strip() else {}
        text = (err if as_json else out + err).replace(f"{self.path}/", "")
        assert "Traceback" not in text, text
        return Answer(code, text, result)

    def torchrun(self, *words: str) -> Answer:
        """Run torchrun."""
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", *words],
            cwd=self.path, capture_output=True, text=True, errors="replace", timeout=SECONDS,
        )  # fmt: skip
        return self._answer(done.returncode, done.stdout, done.stderr, False)

    def train(self, data: str, *words: object, run: str = "run") -> Answer:
        """A tiny training without metrics."""
        return self.run("train", data, "--recipe", "lean", "--run", run, *TINY, *QUIET, *words)

    def inspect(self, data: str) -> dict[str, Any]:
        """What ``alphabar inspect`` says, with its messages as English text."""
        return self.run("inspect", data, "--json").result

    def fields(self, run: str = "run") -> list[dict[str, Any]]:
        """The fields that a run's model is conditioned on."""
        vocabulary = load_model(self / run).vocabulary
        return vocabulary.to_dict()["fields"] if vocabulary else []


def _command(folder: Path, words: list[str], out: Path, err: Path) -> None:
    """One command, in a process that was made for it."""
    os.chdir(folder)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["alphabar", *words]
    main_command()


def picture(seed: int, w: int, h: int) -> Image.Image:
    """A ramp between two colours with an ellipse on it."""
    r = np.random.default_rng(seed)
    a, b = r.integers(0, 256, 3), r.integers(0, 256, 3)
    ramp = np.linspace(0, 1, w)[None, :, None] * np.linspace(0.3, 1, h)[:, None, None]
    image = Image.fromarray((a + (b - a) * ramp).clip(0, 255).astype(np.uint8))
    x, y = int(r.integers(0, w // 2)), int(r.integers(0, h // 2))
    fill = tuple(int(v) for v in r.integers(0, 256, 3))
    ImageDraw.Draw(image).ellipse([x, y, x + w // 3, y + h // 3], fill=fill)
    return image


class NotTried(Exception):
    """Why a case cannot be tried on this machine."""


class Case(NamedTuple):
    """One case. run: returns (whether it is as it should be, what happens)."""

    name: str
    source: str
    tried: str
    run: Callable[[Folder], tuple[bool, str]]


CASES: list[Case] = []


def case(name: str, source: str, tried: str) -> Callable[[Callable[[Folder], tuple[bool, str]]], None]:
    """A decorator that enters a function as a case."""
    return lambda run: CASES.append(Case(name, source, tried, run))


@case("C02", "huggingface/datasets #7880", "`inspect`: a picture beside train/{cat,dog} and test/{cat,dog}")
def _(f: Folder) -> tuple[bool, str]:
    for i, part in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        f.pictures(f"d/{part}", 4, 10 * i)
    picture(99, 48, 40).save(f / "d/preview.png")
    r = f.inspect("d")
    return set(r["classes"]) == {"cat", "dog"} and r[
        "unlabelled"
    ] == 1, f"classes {', '.join(r['classes'])}; {r['notes'][-1]}"


@case("C03", "huggingface/datasets #7880, variant", "`inspect` of train/, validation/ and unlabeled/")
def _(f: Folder) -> tuple[bool, str]:
    for i, part in enumerate(("train", "validation", "unlabeled")):
        f.pictures(f"d/{part}", 5, 10 * i)
    r = f.inspect("d")
    return not r["classes"], f"no classes; {r['notes'][0]}"


@case(
    "C05",
    "lvyilin/pytorch-fgvc-dataset #3",
    "`inspect` of seg_train/seg_train/CLASS beside seg_test/seg_test/CLASS",
)
def _(f: Folder) -> tuple[bool, str]:
    for i, split in enumerate(("seg_train", "seg_test")):
        f.pictures(f"d/{split}/{split}/sea", 4, 20 * i)
        f.pictures(f"d/{split}/{split}/street", 4, 20 * i + 10)
    r = f.inspect("d")
    return set(r["classes"]) == {"sea", "street"}, f"classes {', '.join(r['classes'])}; {r['notes'][0]}"


@case(
    "C08",
    "own variant of C05",
    "`inspect`: a.jpg_large, c.jpg?w=640, d.jpeg.1, f.jpg~ and such; .jpg_large alone",
)
def _(f: Folder) -> tuple[bool, str]:
    folder = f.pictures("d", 10)
    names = (
        "a.jpg_large",
        "b.jpg-large",
        "c.jpg?w=640",
        "d.jpeg.1",
        "e.png:large",
        "f.jpg~",
        "g.jpg.bak",
        "h",
    )
    for i, name in enumerate(names):
        (folder / f"p{i:03d}.png").rename(folder / name)
    (f / "alone").mkdir()
    shutil.copyfile(folder / "a.jpg_large", f / "alone/a.jpg_large")
    (folder / "notes.md").write_text("not a picture")
    mixed, alone = f.inspect("d"), f.inspect("alone")
    return (mixed["pictures"], alone["pictures"]) == (
        10,
        1,
    ), f"{mixed['pictures']} of 10 read; alone: {alone['pictures']} of 1"


@case(
    "C10",
    "own (data linked from an unmounted disk)",
    "`inspect`, `train`: a class folder that is a link to nothing",
)
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("pets/cats", 4)
    (f / "pets/dogs").symlink_to("/nowhere/dogs")
    (skip,) = f.inspect("pets")["skipped"]
    said = f.train("pets").line("dogs")
    return skip["key"] == "dogs" and bool(said), f"inspect: {skip['key']}: {skip['reason']}; train: {said}"


@case("C12", "lvyilin/pytorch-fgvc-dataset, variant", "`inspect` of Cars_Train and Cars_Test")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d/Cars_Train", 4)
    f.pictures("d/Cars_Test", 4, 10)
    r = f.inspect("d")
    return not r["classes"], f"no classes; {r['notes'][0]}"


@case(
    "C19",
    "huggingface/datasets #6777, #5278; bghira/SimpleTuner #594",
    "`train --condition attributes`: columns image and tone; semicolons; labels.csv; no column of names",
)
def _(f: Folder) -> tuple[bool, str]:
    names = [f"p{i:03d}.png" for i in range(24)]
    tables = {
        "metadata.csv": "image,tone",
        "semicolons/metadata.csv": "file_name;tone",
        "other/labels.csv": "image,tone",
    }
    right = []
    for table, head in tables.items():
        folder = str(Path("d") / Path(table).parent)
        f.pictures(folder, 24)
        separator = ";" if ";" in head else ","
        rows = [f"{n}{separator}{('dark', 'light')[i % 2]}" for i, n in enumerate(names)]
        f.table(f"d/{table}", "\n".join([head, *rows]))
        trained = f.train(folder, "--condition", "attributes", run=f"run-{len(right)}")
        right.append(
            trained.code == 0 and list(f.fields(f"run-{len(right)}")[0]["names"]) == ["dark", "light"]
        )
        shutil.rmtree(f / folder)
    f.pictures("none", 24)
    f.table("none/metadata.csv", "\n".join(["where,tone", *(f"q{n},dark" for n in names)]))
    told = f.train("none", "--condition", "attributes", run="run-none")
    line = told.line("where, tone")
    return all(right) and bool(line), f"the first three are trained on tone dark, light; the last: {line}"


@case("C24", "own", "`inspect`: one picture twice in the table, with other values")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 3)
    f.table("d/metadata.csv", "file_name,tone\np000.png,dark\np000.png,light\n")
    notes = f.inspect("d")["notes"]
    return any("more than once" in n for n in notes), notes[0]


@case("C26", "own (several captions for a picture)", "a caption that is a list of sentences; a blank cell")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("a", 1)
    f.pictures("b", 1)
    f.table("a/metadata.jsonl", json.dumps({"file_name": "p000.png", "text": ["a round thing", "a thing"]}))
    f.table("b/metadata.csv", "file_name,text\np000.png,   \n")
    captions = [open_source(f / name).items[0].caption for name in "ab"]
    return captions == ["a round thing", None], f"captions {captions[0]!r} and {captions[1]}"


@case(
    "C28",
    "bethgelab/model-vs-human #28; modelscope/ms-swift PR #306",
    "`train --condition attributes`: missing numbers as NaN, nan, N/A, None, null or an empty cell",
)
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 40)
    missing = [float("nan"), "nan", "N/A", "None", None, ""]
    rows = [
        {"file_name": f"p{i:03d}.png", "year": missing[i // 5 % 6] if i % 5 == 0 else 1990 + i % 9}
        for i in range(40)
    ]
    f.table("d/metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    f.train("d", "--condition", "attributes")
    (field,) = f.fields()
    return "mean" in field, f"year is a number (mean {field.get('mean', 0):.1f}), unknown where it is missing"


@case("C29", "own", "`train --condition attributes`: a whole number of 400 digits; inf")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 24)
    values = [int("9" * 400) if i == 3 else "inf" if i == 5 else i for i in range(24)]
    rows = [json.dumps({"file_name": f"p{i:03d}.png", "n": n}) for i, n in enumerate(values)]
    f.table("d/metadata.jsonl", "\n".join(rows))
    trained = f.train("d", "--condition", "attributes")
    return trained.code == 0 and "mean" in f.fields()[0], trained.line("infinite")


@case(
    "C36",
    "darktable-org/darktable PR #18815; python-pillow/Pillow PR #3744, #154",
    "16-bit WhiteIsZero TIFF; 16-bit grey PNG with a transparent level; unsigned 32-bit TIFF",
)
def _(f: Folder) -> tuple[bool, str]:
    ramp = RAMP.astype("<u2")
    expected = read_image(tiff(ramp, 16, 1), (8, 8)).pixels.astype(int)
    seen = {
        "white is zero": tiff(65535 - ramp, 16, 0),
        "32 bits": tiff(ramp.astype("<u4") * np.uint32(65537), 32, 1),
    }
    off = {name: np.abs(expected - read_image(data, (8, 8)).pixels).max() for name, data in seen.items()}
    level = read_image(deep_grey_png(int(ramp[0, 0])), (64, 224)).pixels[0, 0, 0]
    differences = ", ".join(f"{name} {value}" for name, value in off.items())
    happened = f"off from the plain 16-bit file, of 255: {differences}; the transparent level is {level}"
    return max(off.values()) <= 1 and level == 255, happened


@case("C38", "own", "RGB float TIFF, TIFF of grey with premultiplied alpha, colour PFM: what the reason says")
def _(f: Folder) -> tuple[bool, str]:
    color = np.asarray(picture(3, 64, 48), np.float32) / 255
    grey = np.dstack([np.full((48, 64), 100, np.uint8), np.full((48, 64), 200, np.uint8)])
    files = {
        "float TIFF": tiff(color, 32, 2, samples=3, kind=3),
        "grey with alpha": tiff(grey, 8, 1, samples=2),
        "PFM": b"PF\n64 48\n-1.0\n" + color.tobytes(),
    }
    told = {}
    for name, data in files.items():
        try:
            read_image(data, (8, 8))
            told[name] = "read"
        except Unreadable as reason:
            told[name] = str(reason)
    return not any("damaged" in t or "not a picture" in t for t in told.values()), "; ".join(
        f"{k}: {v}" for k, v in told.items()
    )


@case(
    "C41",
    "lucidrains/denoising-diffusion-pytorch #278, #230",
    "`train` on 1, 2, 3 and 5 pictures with the default monitor",
)
def _(f: Folder) -> tuple[bool, str]:
    ends, right = [], True
    for n in (1, 2, 3, 5):
        f.pictures(f"d{n}", n)
        trained = f.run("train", f"d{n}", "--recipe", "lean", "--run", f"run{n}", *TINY)
        saved = any((f / f"run{n}").glob("checkpoints/[0-9]*"))
        right &= saved or (n == 1 and trained.code == 1)
        ends.append(f"{n}: {'trained and saved' if saved else trained.said}")
    return right, "; ".join(ends)


@case(
    "C42",
    "facebookresearch/fairseq #2140; XavierXiao/Dreambooth-Stable-Diffusion #30; karpathy/autoresearch #7",
    "`train --set monitor.distance=2`: a metric fails after the last step",
)
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 3)
    trained = f.run("train", "d", "--recipe", "lean", "--run", "run", *TINY, "--set", "monitor.distance=2")
    sampled = f.run("sample", "run", "-n", 1, "--steps", 2, "--out", "out")
    return (trained.code, sampled.code) == (0, 0), f"{trained.said}; {sampled.said}"


@case("C48", "own", "`train` again with another monitor.samples, which never changes the weights")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 40)
    f.train("d")
    again = f.train("d", "--images", 192, "--set", "monitor.samples=8")
    return again.code == 0, again.said


@case(
    "C52",
    "fastai/fastai #1727; lisphilar/covid19-sir #51",
    "`report` and `evaluate` of a run on a read-only disk",
)
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 40)
    f.train("d")
    disk = f / "disk"
    disk.mkdir()

    def mount(*words: str) -> None:
        if subprocess.run(["mount", *words, str(disk)], capture_output=True).returncode:
            raise NotTried("it needs the right to mount a file system")

    mount("-t", "tmpfs", "-o", "size=60m", "tmpfs")
    try:
        shutil.copytree(f / "run", disk / "run")
        mount("-o", "remount,ro")
        reported = f.run("report", "disk/run")
        evaluated = f.run("evaluate", "disk/run", "--against", "d", "-n", 12, "--json")
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    right = evaluated.code == 0 and "error" not in evaluated.result
    return right, f"report ({reported.code}): {reported.said}; evaluate ({evaluated.code}): {evaluated.said}"


@case("C55", "own", "`--set optimizer.learning_rate=… --set optimizer.name=adam`, in both orders")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("d", 40)
    rate, name = ("--set", "optimizer.learning_rate=0.0003"), ("--set", "optimizer.name=adam")
    recipes = []
    for run, order in (("a", (*rate, *name)), ("b", (*name, *rate))):
        f.train("d", *order, run=run)
        recipes.append((f / run / "recipe.toml").read_text())
    return recipes[0] == recipes[1] and "learning_rate = 0.0003" in recipes[
        0
    ], "equal recipes with both settings"


@case("C61", "huggingface/diffusers #13362", "`sample`: DDIM with eta 2, -1 and 0.5")
def _(f: Folder) -> tuple[bool, str]:
    ends = []
    for eta in (2, -1, 0.5):
        sampler = json.dumps({"name": "ddim", "eta": eta})
        ends.append(
            f.run("sample", "cars64", "-n", 1, "--steps", 3, "--out", f"o{eta}", "--sampler", sampler)
        )
    return [end.code for end in ends] == [
        2,
        2,
        0,
    ], f"{ends[0].said} (exit {ends[0].code}, {ends[1].code}); 0.5 samples"


@case("C64", "own", "`sample --out` .: in an empty folder; a folder that is not empty; a file")
def _(f: Folder) -> tuple[bool, str]:
    here = Folder(f / "here")
    f.pictures("full", 1)
    (f / "file").write_text("")
    ends = [
        here.run("sample", "cars64", "-n", 1, "--steps", 2, "--out", "."),
        *(f.run("sample", "cars64", "-n", 1, "--steps", 2, "--out", out) for out in ("full", "file")),
    ]
    return ends[1].code > 0 and ends[2].code > 0, "; ".join(end.said for end in ends)


@case("C66", "mseitzer/pytorch-fid PR #91, PR #113", "`evaluate` of samples in sub-folders; of one sample")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("samples/a", 4, 100, 32)
    f.pictures("samples/b", 4, 110, 32)
    f.pictures("one", 1, 100, 32)
    f.pictures("d", 20)
    many, one = (
        f.run("evaluate", name, "--against", "d", "-n", n) for name, n in (("samples", 8), ("one", 8))
    )
    return "-n 0" not in many.text + one.text and "sub-folder" in many.text, f"{many.said}; {one.said}"


@case("C69", "mseitzer/pytorch-fid #63, #74", "`evaluate`: the same pictures as JPEG against PNG")
def _(f: Folder) -> tuple[bool, str]:
    folder = f.pictures("d", 12, 100, 32)
    (f / "jpg").mkdir()
    for path in folder.iterdir():
        Image.open(path).save(f / "jpg" / f"{path.stem}.jpg")
    line = f.run("evaluate", "jpg", "--against", "d", "-n", 12).line("JPEG")
    return bool(line), line or "no word of compression"


@case("C72", "own", "`report` after the pictures have moved")
def _(f: Folder) -> tuple[bool, str]:
    f.pictures("there", 40)
    f.train("there")
    (f / "there").rename(f / "elsewhere")
    end = f.run("report", "run")
    return end.code == 0 and "--data" in end.text, end.line("--data") or end.said


def painted(name: str) -> Image.Image:
    """A mask of 64 px with a square of 20 px, in one of the ways in which people paint them."""
    strokes = {"white": (255, 255, 255, 255), "red": (255, 0, 0, 255)}
    if name in strokes:
        mask = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        ImageDraw.Draw(mask).rectangle([20, 20, 39, 39], fill=strokes[name])
        return mask
    levels = np.zeros((64, 64, 3), np.uint8)
    levels[20:40, 20:40, :] = {"red on black": (255, 0, 0), "hole": 255}.get(name, 1)
    if name == "hole":
        return Image.fromarray(np.dstack([np.zeros((64, 64, 3), np.uint8), 255 - levels[..., 0]]))
    if name == "all white":
        levels[:] = 255
    if name == "16 bits":
        return Image.fromarray(levels[..., 0].astype(np.uint16) * 255)
    return Image.fromarray(levels[..., 0] if name == "0 and 1" else levels)


def share_filled(f: Folder, name: str) -> float | None:
    """The share of a picture that ``inpaint`` changes with a mask, outside of which nothing may; or None."""
    picture(3, 64, 64).save(f / "photo.png")
    painted(name).save(f / f"{name}.png")
    end = f.run(
        "inpaint",
        "cars64",
        "photo.png",
        "--mask",
        f"{name}.png",
        "-n",
        1,
        "--steps",
        3,
        "--out",
        f"out {name}",
    )
    if end.code:
        return None
    changed = (
        np.asarray(Image.open(f / f"out {name}/photo-1.png")) != np.asarray(Image.open(f / "photo.png"))
    ).any(2)
    outside = changed.copy()
    outside[20:40, 20:40] = False
    return changed.mean().item() if not outside.any() else 1.0


@case(
    "C74",
    "Mikubill/sd-webui-controlnet PR #3079; AUTOMATIC1111/stable-diffusion-webui #12898;"
    " invoke-ai/InvokeAI #380",
    "`inpaint --mask`: strokes on a clear layer (white, red), a transparent hole in black",
)
def _(f: Folder) -> tuple[bool, str]:
    shares = {name: share_filled(f, name) for name in ("white", "red", "hole")}
    right = all(share is not None and 0.08 < share < 0.12 for share in shares.values())
    return right, "filled, where 10 % were painted: " + ", ".join(
        f"{k} {v:.0%}" if v else f"{k} refused" for k, v in shares.items()
    )


@case(
    "C75",
    "AUTOMATIC1111/stable-diffusion-webui #1188, #414",
    "`inpaint --mask`: 0 and 1, red on black, 16 bits of 0 and 255; all white",
)
def _(f: Folder) -> tuple[bool, str]:
    shares = {name: share_filled(f, name) for name in ("0 and 1", "red on black", "16 bits", "all white")}
    right = (
        all(share is None or 0.08 < share < 0.12 for share in shares.values()) and shares["all white"] is None
    )
    return right, ", ".join(
        f"{k}: {'refused' if v is None else f'{v:.0%} filled'}" for k, v in shares.items()
    )


@case("C85", "own", "`degrade` of a folder: one damaged picture; a.jpg, a.png and a.webp beside each other")
def _(f: Folder) -> tuple[bool, str]:
    folder = f.pictures("d", 3)
    (folder / "p001.png").write_bytes((folder / "p001.png").read_bytes()[:100])
    for i, suffix in enumerate(("jpg", "png", "webp")):
        Image.new("RGB", (32, 32), (80 * i, 0, 0)).save(folder / f"a.{suffix}")
    end = f.run("degrade", "d", "--degradation", "blur:1", "--out", "o")
    made = sorted(path.name for path in (f / "o").glob("*.png"))
    reds = sorted(
        round(np.asarray(Image.open(f / "o" / n))[..., 0].mean() / 80) for n in made if n.startswith("a")
    )
    return reds == [0, 1, 2] and len(made) == 5, f"{', '.join(made)}; {end.line('p001')}"


def uploaded(f: Folder, image: Image.Image) -> Image.Image:
    """The file that the studio works with when a person uploads a PNG file to restore it."""
    try:
        from gradio.data_classes import FileData

        from alphabar.studio.app import build_page
        from alphabar.studio.jobs import TrainingJobs
        from alphabar.studio.models import ModelStore
    except ImportError:
        raise NotTried("it needs the extra studio") from None
    image.save(f / "upload.png")
    models = ModelStore(f / "models")
    page = build_page(models, TrainingJobs(models), f / "files")
    upload = next(b for b in page.blocks.values() if getattr(b, "elem_id", None) == "picture-upload")
    return Image.open(upload.preprocess(FileData(path=str(f / "upload.png"), orig_name="upload.png")))


@case("C88", "gradio-app/gradio #2849, #8680", "studio, Restore: a 16-bit grey PNG is uploaded")
def _(f: Folder) -> tuple[bool, str]:
    grey = np.asarray(picture(3, 64, 48).convert("L")).astype(np.uint16) * 257
    given = uploaded(f, Image.fromarray(grey))
    same = given.mode.startswith("I") and np.array_equal(np.asarray(given), grey)
    return same, "the file arrives as it is" if same else f"it arrives as {given.mode}, {given.getextrema()}"


@case(
    "C89",
    "gradio-app/gradio #10842, #7636, #11628; NVIDIA/DIGITS #85",
    "studio, Restore: a transparent PNG is uploaded",
)
def _(f: Folder) -> tuple[bool, str]:
    levels = np.array(picture(3, 64, 64).convert("RGBA"))
    levels[:, :32] = 0
    given = uploaded(f, Image.fromarray(levels))
    same = given.mode == "RGBA" and np.array_equal(np.asarray(given), levels)
    return same, "the file arrives as it is" if same else f"it arrives as {given.mode}"


@case("C100", "pytorch/pytorch #120601", "the guide's own command for several processes")
def _(f: Folder) -> tuple[bool, str]:
    (line,) = [line for line in GUIDE.read_text().splitlines() if line.startswith("torchrun ")]
    f.pictures("my_pictures", 24)
    words = line.split()[1:]
    words = [*words[: words.index("--budget")], *TINY, *QUIET, "--recipe", "lean", "--run", "runs/mine"]
    end = f.torchrun(*words)
    return end.code == 0, end.said


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases; by default all")
    names = parser.parse_args().cases
    chosen = [each for each in CASES if not names or each.name in names]
    if not chosen:
        raise SystemExit(f"There are no such cases. Choose among {', '.join(each.name for each in CASES)}.")
    question = "Do inputs that failed in people's hands, with comparable tools or with alphabar, work now?"
    setup = """Every case comes from a report that users of a comparable tool filed in public, or is a close
        variant of one. Its input is made anew, the commands run on it, and what comes out is checked by the
        script. Texts are alphabar's own; the last line of a command stands for all."""
    print_section("# Field cases", question, setup)
    print_row(("case", "reported to", "what is tried", "what happens", "as it should be"))
    print_row(["---"] * 5)
    wrong = []
    torch.set_num_threads(1)  # processes are forked, which threads do not survive
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"ALPHABAR_CACHE": f"{root}/cache", "OMP_NUM_THREADS": "1"}
        for each in chosen:
            note(each.name)
            try:
                right, happened = each.run(Folder(Path(root) / each.name))
                verdict = "yes" if right else "**no**"
            except NotTried as reason:
                verdict, happened = "not tried", str(reason)
            except Exception as error:
                verdict, happened = "**no**", f"{type(error).__name__}: {str(error)[-300:]}"
            wrong += [each.name] if verdict == "**no**" else []
            cell = " ".join(happened.replace("|", "\\|").split())
            print_row((each.name, each.source, each.tried, cell, verdict))
    print()
    print_command()
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: not as it should be")


if __name__ == "__main__":
    main()
