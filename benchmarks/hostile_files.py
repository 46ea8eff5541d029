"""What happens to thousands of damaged pictures, tables, captions, parquet, MATLAB and model files?

    python benchmarks/hostile_files.py                    # 10,000 pictures and 1,000 other files
    python benchmarks/hostile_files.py --count 500 --others 50 --folder tried

Every file is a sound one with one to three mutations that know its format (tests/mutated_files.py), and a
function of the seed and its number. Processes of their own read the files, so that a crash, a hang and the
memory of each are seen. The folder keeps what was found: the same command goes on where it was stopped.
Prints a section of docs/results/malformed_images.md; ends with an error where a file crashed or hung its
process, needed too much memory, raised what is no reason, or was lost from the list. Takes about half an hour
on two cores.
"""

import argparse
import json
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import argument_parser, note, print_command, print_section, print_table

SECONDS = 20.0  # of a processor, that one file may take
MEBIBYTES = 2048  # that one file may need besides what the process has
ADDRESSES = 24 * 2**30  # bytes of address space of a process: beyond it memory is refused instead of lost
BATCH = 50  # files of one folder
PATIENCE = 600.0  # seconds that are waited for an answer, however busy the machine is

OTHERS = ("metadata", "captions", "parquet", "mat", "model")
WRONG = ("crash", "hang", "memory", "error", "lost")

Found = dict[str, Any]


# ---------------------------------------------------------------- in a process of its own


def work(folder: Path, seed: int) -> None:
    """Reads jobs from stdin, one JSON object a line, and answers each file with one on stdout."""
    import mutated_files

    os.environ["ALPHABAR_CACHE"] = str(folder.with_name("cache"))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    answers = sys.stdout
    sys.stdout = sys.stderr
    seeds = mutated_files.picture_seeds()
    readers = {"picture": _Pictures(folder, seed, seeds), "other": _Others(folder, seed)}
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        for found in readers[job["kind"]].read(job["numbers"]):
            print(json.dumps(found), file=answers, flush=True)


def _measured(attempt: Any) -> Found:
    """Whether an attempt ends well ("read"), with a reason ("named") or otherwise; its time and memory."""
    from alphabar.errors import AlphabarError

    before = _memory(reset=True)
    start = time.process_time()
    try:
        attempt()
        found: Found = {"outcome": "read"}
    except AlphabarError as reason:
        found = {"outcome": "named", "reason": getattr(reason.message, "identifier", "")}
    except Exception:
        found = {"outcome": "error", "reason": traceback.format_exc()[-800:]}
    found |= {"seconds": time.process_time() - start, "mebibytes": _memory() - before}
    if found["mebibytes"] > MEBIBYTES:
        found["outcome"] = "memory"
    return found


def _memory(reset: bool = False) -> float:
    """The largest memory of this process in MiB since the last reset; with a reset, what it has now."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:" if reset else "VmHWM:")[1].split()[0]) / 1024


class _Pictures:
    """Mutated pictures: each is read as the codec, the inspection and the restoration read it, then all."""

    def __init__(self, folder: Path, seed: int, seeds: dict[str, bytes]):
        self.folder, self.seed, self.seeds = folder, seed, seeds

    def read(self, numbers: list[int]) -> Iterator[Found]:
        """A record before and after each picture and the list of all, and for each that the list has lost."""
        from alphabar.codecs.base import quietly
        from mutated_files import picture

        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        names = {}
        for number in numbers:
            name, data = picture(self.seed, number, self.seeds)
            (self.folder / name).write_bytes(data)
            names[name] = number
        for name, number in names.items():
            about = {"number": number, "kind": "picture", "format": Path(name).suffix[1:].lower()}
            yield about
            with quietly():
                found = _measured(lambda path=self.folder / name: _read_picture(path))
            yield about | found
        about = {"number": -1 - numbers[0], "kind": "picture", "format": "list"}
        yield about
        lost = sorted(set(names) - _listed(self.folder))
        yield from (about | {"number": names[name], "outcome": "lost"} for name in lost)
        yield about | {"outcome": "read"}


def _read_picture(path: Path) -> None:
    from alphabar.codecs.image import ImageCodec
    from alphabar.restoration.photo import read_photo

    data = path.read_bytes()
    ImageCodec(16, channels=4).read(data)
    ImageCodec((8, 16)).read(data, "crop")
    read_photo(path)


def _listed(folder: Path) -> set[str]:
    """The files that a data set of the folder has or names with a reason."""
    from alphabar.codecs.image import ImageCodec
    from alphabar.data.dataset import prepare
    from alphabar.data.sources import open_source
    from alphabar.errors import AlphabarError
    from alphabar.progress import last

    source = open_source(folder)
    try:
        dataset = last(prepare(source, ImageCodec(16)))
    except AlphabarError as reason:  # none of them is a picture: the error says how many
        return {item.key for item in source.items} if "skipped" in str(reason) else set()
    return {*dataset.keys, *(skip.key for skip in dataset.skipped)}


class _Others:
    """Mutated tables, captions, parquet, MATLAB and model files, each among sound files."""

    def __init__(self, folder: Path, seed: int):
        from PIL import Image

        import hostile
        from mutated_files import devkit, picture_table, table_texts
        from restoration_models import untrained

        self.folder, self.seed = folder, seed
        self.png = hostile.encoded(Image.fromarray(hostile.UPRIGHT), "PNG")
        self.tables, self.devkit, self.table = table_texts(), devkit(), picture_table()
        sound = untrained(Path(tempfile.mkdtemp()) / "sound").path
        self.files = {path.name: path.read_bytes() for path in sound.iterdir()}

    def read(self, numbers: list[int]) -> Iterator[Found]:
        """A record before and after each file."""
        for number in numbers:
            kind = OTHERS[number % len(OTHERS)]
            about = {"number": number, "kind": "other", "format": kind}
            yield about
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            attempt = getattr(self, kind)(random.Random(f"{kind} {self.seed} {number}"))
            yield about | _measured(attempt)

    def metadata(self, r: random.Random) -> Any:
        """A table beside six pictures: all of them stay, and all that is known of them is JSON."""
        from mutated_files import mutated_text

        for i in range(6):
            (self.folder / f"p{i}.png").write_bytes(self.png)
        name = r.choice([name for name in self.tables if name != "p0.txt"])
        (self.folder / name).write_bytes(mutated_text(self.tables[name], r))
        return lambda: self._open(6)

    def captions(self, r: random.Random) -> Any:
        """A caption beside a picture."""
        from mutated_files import mutated_text

        (self.folder / "p0.png").write_bytes(self.png)
        (self.folder / "p0.txt").write_bytes(mutated_text(self.tables["p0.txt"], r))
        return lambda: self._open(1)

    def parquet(self, r: random.Random) -> Any:
        """A parquet file with six pictures in it, all of which are read."""
        from mutated_files import bits, blocks, cut, other_number

        data = r.choice((bits, blocks, cut, other_number))(self.table, r)
        (self.folder / "train.parquet").write_bytes(data)
        return lambda: self._open()

    def mat(self, r: random.Random) -> Any:
        """A MATLAB file of the devkit of six cars, all of which stay."""
        from mutated_files import bits, blocks, cut, other_number

        (self.folder / "cars_train").mkdir()
        for i in range(6):
            (self.folder / "cars_train" / f"{i + 1:05d}.jpg").write_bytes(self.png)
        changed = r.choice(list(self.devkit))
        for name, data in self.devkit.items():
            mutation = r.choice((bits, blocks, cut, other_number))
            (self.folder / name).write_bytes(mutation(data, r) if name == changed else data)
        return lambda: self._open(6)

    def model(self, r: random.Random) -> Any:
        """A file of a model's folder; in half of the cases the list of checksums fits."""
        import hashlib

        from alphabar.runs.model import load_model
        from mutated_files import bits, blocks, cut, mutated_text, other_number

        files = dict(self.files)
        name = r.choice(list(files))
        change = mutated_text if name.endswith(".json") else r.choice((bits, blocks, cut, other_number))
        files[name] = change(files[name], r)
        if name != "MANIFEST.json" and r.random() < 0.5:
            sums = {
                key: hashlib.sha256(data).hexdigest() for key, data in files.items() if key != "MANIFEST.json"
            }
            files["MANIFEST.json"] = json.dumps(sums).encode()
        for key, data in files.items():
            (self.folder / key).write_bytes(data)
        return lambda: load_model(self.folder)

    def _open(self, pictures: int | None = None) -> None:
        from alphabar.codecs.image import ImageCodec
        from alphabar.conditioning.vocabulary import label_columns
        from alphabar.data.dataset import prepare
        from alphabar.data.sources import open_source
        from alphabar.progress import last

        dataset = last(prepare(open_source(self.folder), ImageCodec(16)))
        assert pictures is None or len(dataset.keys) == pictures, (
            f"{len(dataset.keys)} of {pictures} pictures"
        )
        label_columns("attributes", dataset.labels.tolist(), dataset.classes, dataset.attributes)


# ---------------------------------------------------------------- the process that waits


class Reader:
    """A process that reads files; it is started again where a file ended it."""

    def __init__(self, folder: Path, seed: int):
        self.command = [sys.executable, __file__, "--work", str(folder), "--seed", str(seed)]
        self.errors = folder.with_name(f"{folder.name}.err")
        self.process: subprocess.Popen[bytes] | None = None
        self.lines: queue.Queue[bytes] = queue.Queue()

    def read(self, kind: str, numbers: list[int]) -> Iterator[Found]:
        """A record for each file; one that ends the process, or takes too long, is recorded as that."""
        while numbers:
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(json.dumps({"kind": kind, "numbers": numbers}).encode() + b"\n")
            process.stdin.flush()
            done: set[int] = set()
            listed = kind != "picture"
            at: Found = {"number": numbers[0], "kind": kind, "format": "list"}
            while len(done) < len(numbers) or not listed:
                answer = self._answer()
                if isinstance(answer, str):
                    answer = at | {"outcome": answer}
                if "outcome" not in answer:
                    at = answer
                    continue
                yield answer
                listed |= answer["number"] < 0
                if answer["outcome"] != "lost" and answer["number"] >= 0:
                    done.add(answer["number"])
                if self.process is None:
                    break
            numbers = [] if at["number"] < 0 else [n for n in numbers if n not in done]

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            with open(self.errors, "ab") as errors:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
            self.lines = queue.Queue()
            threading.Thread(target=_forward, args=(self.process.stdout, self.lines), daemon=True).start()
            if isinstance(self._answer(), str):
                raise SystemExit(f"the process that reads does not start: see {self.errors}")
        return self.process

    def _answer(self) -> Found | str:
        """The next record; "hang" or "crash", after which the process is gone."""
        used, waited = self._processor_seconds(), 0.0
        while self._processor_seconds() - used < SECONDS and waited < PATIENCE:
            with suppress(queue.Empty):
                line = self.lines.get(timeout=2)
                if line:
                    return json.loads(line)
                self.close()
                return "crash"
            waited += 2
        self.close()
        return "hang"

    def _processor_seconds(self) -> float:
        """How long the process has computed, all its threads together."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _forward(stream: Any, lines: "queue.Queue[bytes]") -> None:
    """Puts the lines of a process into a queue, and nothing where it has ended."""
    for line in stream:
        lines.put(line)
    lines.put(b"")


def campaign(folder: Path, seed: int, counts: dict[str, int], readers: int) -> list[Found]:
    """All records: those in the folder from before, and those of the files that were not read yet."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "found.jsonl"
    found = list(_records(log))
    lock = threading.Lock()
    done = {(each["kind"], each["number"]) for each in found if each["number"] >= 0}
    jobs = []
    for kind, count in counts.items():
        left = [n for n in range(count) if (kind, n) not in done]
        jobs += [(kind, left[i : i + BATCH]) for i in range(0, len(left), BATCH)]
    note(f"{len(done)} files were read before, {sum(len(numbers) for _, numbers in jobs)} are left")
    parts = [jobs[i::readers] for i in range(readers)]

    def share(i: int) -> None:
        reader = Reader(folder / f"reader-{i}", seed)
        try:
            for kind, numbers in parts[i]:
                records = list(reader.read(kind, numbers))
                with lock, open(log, "a") as file:
                    found.extend(records)
                    file.writelines(json.dumps(record) + "\n" for record in records)
                note(f"{len(found)} records, {sum(r['outcome'] in WRONG for r in found)} of them wrong")
        finally:
            reader.close()

    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(share, range(readers)))
    wanted = {kind: range(count) for kind, count in counts.items()}
    return [each for each in found if max(each["number"], -1 - each["number"]) in wanted[each["kind"]]]


def _records(log: Path) -> Iterator[Found]:
    """The records of an earlier run, which may have been stopped in the middle of a line."""
    for line in log.read_text().splitlines() if log.exists() else ():
        with suppress(ValueError):
            yield json.loads(line)


def rows(found: list[Found]) -> Iterator[list[str]]:
    """A row of the table for each kind of file."""
    by_format: dict[tuple[bool, str], list[Found]] = defaultdict(list)
    for each in found:
        if each["format"] != "list" or each["outcome"] in WRONG:
            by_format[each["kind"] == "other", each["format"]].append(each)
    all_records = [each for records in by_format.values() for each in records]
    for (_, name), records in [*sorted(by_format.items()), ((False, "**all**"), all_records)]:
        counts = Counter(each["outcome"] for each in records)
        slowest = max(each.get("seconds", 0) for each in records)
        largest = max(each.get("mebibytes", 0) for each in records)
        files = len({(each["kind"], each["number"]) for each in records})
        numbers = [f"{n:,}" for n in (files, *(counts[key] for key in ("read", "named", *WRONG)))]
        yield [name, *numbers, f"{slowest:.2f} s", f"{largest:,.0f} MiB"]


def arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="pictures (default %(default)s)")
    parser.add_argument("--others", type=int, default=1_000, help="other files (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", type=int, default=2, help="processes side by side (default %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("hostile_files"), help="what was found is kept here"
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.work:
        work(given.work, given.seed)
        return
    counts = {"picture": given.count, "other": given.others}
    found = campaign(given.folder, given.seed, counts, given.readers)
    setup = f"""{given.count:,} pictures and {given.others:,} tables, captions, parquet, MATLAB and model
        files, each a sound file with one to three mutations of its structure or bytes (seed {given.seed}).
        Processes of their own read each picture three ways (as training data with and without alpha, and as a
        photograph to restore) and then all of them as a folder; of the other files, all pictures beside a
        damaged table must stay. A file may take {SECONDS:.0f} seconds of a processor and {MEBIBYTES:,} MiB;
        whatever is raised must be one of alphabar's reasons."""
    print_section(
        "## Mutated files", "Does any damaged file crash, hang or flood the program, or vanish?", setup
    )
    head = ("kind", "files", "read", "named", *("crashes", "hangs", "too large", "tracebacks", "lost"))
    print_table((*head, "slowest", "memory"), rows(found))
    print_command()
    wrong = [each for each in found if each["outcome"] in WRONG]
    for each in wrong:
        note(json.dumps(each))
    if wrong:
        raise SystemExit(f"{len(wrong)} files went wrong")


if __name__ == "__main__":
    main()
