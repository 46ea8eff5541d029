"""One byte changed at a time: of every file of a run, of a model folder and of the cache of the data."""

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alphabar import AlphabarError, Run, load_model, open_source, prepare, write_report
from alphabar.codecs import build_codec
from alphabar.data.dataset import Dataset
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.progress import last
from crash.children import run
from crash.material import Material
from crash.trials import Trial

SHARE = 250  # places that one child tries
EXTRACTED = 2  # pictures whose features are cached: a damaged cache is computed again at every place
SLOW = 20  # where reading, or computing again, takes long, so many times fewer places are tried
BINARY = (".safetensors", ".npy", ".png")


class Damage:
    """A copy of the run and of the cache, in which one byte at a time is changed and everything is read."""

    def __init__(self, material: Material):
        self.material = material
        self.folder = material.folder / "flips"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.run = Run(self.folder / "run")
        self.cache = self.folder / "cache"
        self.recipe = Run(material.model).recipe
        self.extractor, self.pictures = EXTRACTORS.build("lite0"), self._dataset().items[:EXTRACTED]
        last(extract(self.extractor, self.pictures, cache=material.folder / "cache" / "extracted"))
        self.restore()

    def restore(self) -> None:
        """Makes the copy whole again."""
        shutil.copytree(self.material.model, self.run.path, dirs_exist_ok=True)
        shutil.copytree(self.material.folder / "cache", self.cache, dirs_exist_ok=True)

    def reader(self, path: Path) -> tuple[Callable[[], Any], int] | None:
        """What uses a file, and how many times fewer places are tried; None for what nothing reads.

        What it returns must be equal with and without damage, unless it raises AlphabarError.
        """
        part = path.relative_to(self.folder).parts
        readers: dict[tuple[str, ...], tuple[Callable[[], Any], int]] = {
            ("run", "checkpoints"): (self._checkpoint, 1),
            ("run", "recipe.toml"): (lambda: self.run.recipe, 1),
            ("run", "averages"): (lambda: _weights(load_model(self.run.path, ema=0.1)), 1),
            ("run", "model"): (lambda: _weights(load_model(self.run.model_folder)), 1),
            ("run", "log.jsonl"): (self._log, 1),
            ("run", "evaluation.json"): (self._report, SLOW),
            ("run", "environment.json"): (self._report, SLOW),
            ("run", "data.json"): (self._data, 1),
            ("cache", "datasets"): (self._cached_dataset, 1),
            ("cache", "channels"): (self._cached_dataset, 1),
            ("cache", "extracted"): (self._features, 1),
        }
        return readers.get(part[:2])

    def _checkpoint(self) -> Any:
        newest, problems = self.run.checkpoints.newest()
        if newest is None:
            raise AlphabarError("runs.all_damaged", path=self.run.path, problem=problems[0])
        return {name: hashlib.sha256(data).hexdigest() for name, data in newest.files.items()}

    def _log(self) -> None:
        self.run.log.records()
        self.run.log.rewind(1_000_000)

    def _report(self) -> None:
        write_report(self.run.path)

    def _data(self) -> None:
        """Another path is noticed where it is opened."""
        if self.run.data is not None:
            open_source(self.run.data)

    def _dataset(self) -> Dataset:
        source = open_source(str(self.material.pictures))
        return last(prepare(source, build_codec(self.recipe.data), self.recipe.data.fit))

    def _cached_dataset(self) -> Any:
        os.environ["ALPHABAR_CACHE"] = str(self.cache)
        dataset = self._dataset()
        arrays = [values.tobytes() for values in (dataset.items, dataset.labels, dataset.hashes)]
        return (
            arrays,
            dataset.keys,
            dataset.classes,
            dataset.captions,
            dataset.attributes,
            dataset.fingerprint,
        )

    def _features(self) -> Any:
        found = last(extract(self.extractor, self.pictures, cache=self.cache / "extracted"))
        return found.features.numpy().tobytes()


def _weights(model: Any) -> Any:
    parts = [model.denoiser, *([model.early] if model.early else [])]
    tensors = [p.numpy().tobytes() for part in parts for p in part.state_dict().values()]
    return model.recipe, [hashlib.sha256(tensor).hexdigest() for tensor in tensors]


def trials(material: Material, places: int, seed: int) -> Iterator[Trial]:
    """Every byte of text files and of the headers of tensor files, ``places`` others of each binary file."""
    damage = Damage(material)
    for path in sorted(path for path in damage.folder.rglob("*") if path.is_file() and path.name != ".lock"):
        if (found := damage.reader(path)) is None:
            continue
        reader, fewer = found
        rng = random.Random(f"{seed} {path.relative_to(damage.folder)}")
        chosen = _places(path, places, rng)
        chosen = rng.sample(chosen, len(chosen) // fewer) if fewer > 1 else chosen
        for begin in range(0, len(chosen), SHARE):
            share = sorted(chosen)[begin : begin + SHARE]
            name = f"flips: {path.relative_to(damage.folder)}, places {begin} to {begin + len(share)}"

            def do(
                path: Path = path, reader: Callable[[], Any] = reader, share: list[int] = share
            ) -> list[str]:
                return _try(damage, path, reader, share)

            yield Trial(name, f"one byte of {_kind(path)} changed", do, len(share))


def _places(path: Path, places: int, rng: random.Random) -> list[int]:
    size = path.stat().st_size
    if path.suffix not in BINARY:
        return list(range(size))
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0] if path.suffix == ".safetensors" else 128
    header = min(header, size)
    headers = rng.sample(range(header), min(header, 10 * places))  # all of them with the usual number
    return sorted([*headers, *rng.sample(range(header, size), min(places, size - header))])


def _kind(path: Path) -> str:
    parts = path.parts
    if "cache" in parts and "flips" in parts:
        return "the cache"
    for folder, words in {"averages": "averages", "checkpoints": "a checkpoint", "model": "a model"}.items():
        if path.parent.name == folder or path.parent.parent.name == folder:
            return words
    return path.name


def _try(damage: Damage, path: Path, reader: Callable[[], Any], places: list[int]) -> list[str]:
    """The faults of some places of a file, all tried in one child."""

    def work() -> None:
        whole, right = path.read_bytes(), reader()
        for at in places:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << (at % 8)
            path.write_bytes(damaged)
            try:
                passed = reader()
                if passed != right:
                    print(f"FAULT {path.name} byte {at}: another result without a word", flush=True)
            except AlphabarError:
                pass
            except BaseException as error:
                print(f"FAULT {path.name} byte {at}: {type(error).__name__}: {error}"[:200], flush=True)
            damage.restore() if "cache" in path.parts else path.write_bytes(whole)

    damage.restore()
    ended = run(work, folder=damage.folder)
    faults = [line for line in ended.said.splitlines() if line.startswith("FAULT")]
    return faults or ([ended.said[-300:]] if ended.code else [])
