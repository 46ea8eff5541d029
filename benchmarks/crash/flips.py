"""One byte changed at a time: of every file that commands read again, in runs, results and the cache."""

import hashlib
import os
import random
import shutil
import struct
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from alphabar import AlphabarError, Run, load_model, open_source, prepare, write_report
from alphabar.cli.__main__ import main
from alphabar.codecs import build_codec
from alphabar.data.channels import choose_channels
from alphabar.data.dataset import Dataset
from alphabar.evaluation.samples import generate_samples, read_reference
from alphabar.files import DamagedFile
from alphabar.inference import openvino
from alphabar.inference.runtime import InferenceRuntime
from alphabar.inference.timings import Timing, read_timings, write_timings
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.progress import Progress, last
from alphabar.runtime import Runtime
from alphabar.sampling.settings import sampling_settings
from alphabar.training.given_runtime import POSSIBLE, given_runtime
from crash.children import command, run
from crash.material import Material
from crash.trials import Trial

SHARE = 250  # places that one child tries
EXTRACTED = 2  # pictures whose features are cached: a damaged cache is computed again at every place
FEW, SLOW, VERY_SLOW = 4, 20, 100  # where reading, or computing again, takes long: so many times fewer places
BINARY = (".safetensors", ".npy", ".png", ".bin")
GENERATED = 4  # samples of the stopped evaluation whose cache is damaged


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
        self._make_the_rest()
        self.restore()

    def _make_the_rest(self) -> None:
        """What the run, the results and the cache do not have yet."""
        Run(self.material.model).remember_preparation(12.5)
        last(choose_channels(open_source(str(self.material.pictures))))
        self._generated()
        self._converted()
        write_timings(self.material.folder / "cache" / "inference" / "times.json", TIMINGS)
        for name, arguments in self.results().items():
            shutil.rmtree(folder := self.material.folder / name, ignore_errors=True)
            if (ended := run(command(*arguments, "--out", folder), folder=self.material.folder)).code:
                raise SystemExit(ended.said)

    def results(self) -> dict[str, tuple[object, ...]]:
        """Commands whose results can be gone on with, by the name of their folder."""
        model, picture = self.material.model, next(self.material.pictures.glob("*/*.png"))
        few = ("-n", 2, "--steps", 2, "--precision", "fp32")
        return {
            "sampled": ("sample", model, *few),
            "restored": ("restore", model, picture, "--degradation", "blur:1", *few),
            "degraded": ("degrade", picture, "--degradation", "blur:1"),
        }

    def restore(self) -> None:
        """Makes the copy whole again."""
        shutil.copytree(self.material.model, self.run.path, dirs_exist_ok=True)
        shutil.copytree(self.material.folder / "cache", self.cache, dirs_exist_ok=True)
        for name in self.results():
            shutil.copytree(self.material.folder / name, self.folder / name, dirs_exist_ok=True)

    def reader(self, path: Path) -> tuple[Callable[[], Any], int] | None:
        """What uses a file, and how many times fewer places are tried; None for what nothing reads.

        What it returns must be equal with and without damage, unless it raises AlphabarError or warns.
        """
        part = path.relative_to(self.folder).parts
        readers: dict[tuple[str, ...], tuple[Callable[[], Any], int]] = {
            ("run", "checkpoints"): (self._checkpoint, 1),
            ("run", "recipe.toml"): (lambda: self.run.recipe, 1),
            ("run", ".recipe"): (lambda: self.run.recipe, 1),
            ("run", "preparation.json"): (lambda: self.run.preparation, 1),
            ("run", "runtime.json"): (lambda: _kind_of(given_runtime(self.run.path)), 1),
            ("run", "copies.png"): (self._pictures, VERY_SLOW),
            ("run", "samples"): (self._pictures, VERY_SLOW),
            ("run", "report_files"): (self._pictures, VERY_SLOW),
            ("run", "averages"): (lambda: _weights(load_model(self.run.path, ema=0.1)), 1),
            ("run", "model"): (lambda: _weights(load_model(self.run.model_folder)), 1),
            ("run", "log.jsonl"): (self._log, 1),
            ("run", "evaluation.json"): (self._report, SLOW),
            ("run", "environment.json"): (self._report, SLOW),
            ("run", "data.json"): (lambda: self.run.data, 1),
            ("cache", "datasets"): (self._cached_dataset, 1),
            ("cache", "channels"): (self._channels, 1),
            ("cache", "extracted"): (self._features, 1),
            ("cache", "samples"): (self._generated, FEW),
            ("cache", "inference"): (lambda: read_timings(path), 1),
            ("cache", "openvino"): (self._converted, VERY_SLOW),
        }
        if path.name == "figures.json":
            return self._report, SLOW
        if part[0] in self.results() and path.suffix == ".json":
            return (lambda: self._gone_on(part[0])), 1
        return readers.get(part[:2])

    def _checkpoint(self) -> Any:
        newest, problems = self.run.checkpoints.newest()
        if newest is None:
            raise AlphabarError("runs.all_damaged", path=self.run.path, problem=problems[0])
        return {name: hashlib.sha256(data).hexdigest() for name, data in newest.files.items()}

    def _log(self) -> None:
        self.run.log.records()
        self.run.log.rewind(1_000_000)

    def _report(self) -> str:
        """The page of the report. Raises AlphabarError where it says that something is damaged."""
        page = write_report(self.run.path, language="en").read_text(encoding="utf-8")
        if "damaged" in page or "cannot be read" in page:
            raise AlphabarError("said")
        return page

    def _pictures(self) -> None:
        """The report's pictures: a person sees their damage, and the report must come all the same."""
        write_report(self.run.path)

    def _channels(self) -> int:
        return last(choose_channels(open_source(str(self.material.pictures))))

    def _generated(self) -> Any:
        """The samples of an evaluation that was stopped."""
        model = load_model(self.material.model)
        reference = last(_finishing(read_reference(open_source(str(self.material.pictures)), model.codec)))
        settings = sampling_settings(model, steps=2)
        found = last(_finishing(generate_samples(model, GENERATED, settings, reference)))
        if found.cache:
            found.cache.claim.close()
        return found.items[:].numpy().tobytes(), found.about["runtime"]

    def _converted(self) -> Any:
        """A network that was converted for OpenVINO, where that is installed."""
        if not openvino.installed():
            return None
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.SiLU())
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        compiled = openvino.compile_openvino(openvino.stored_openvino(Plain(network), (3, 8, 8), 0), "fp32")
        return compiled(torch.ones(1, 3, 8, 8), torch.ones(1)).numpy().tobytes()

    def _gone_on(self, name: str) -> Any:
        """The first result of a folder, made again by the command that began it."""
        folder = self.folder / name
        first = min(folder.glob("*[0-9a-z].png"))
        first.unlink()
        sys.argv = ["alphabar", *map(str, self.results()[name]), "--out", str(folder)]
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                main()
        except SystemExit as end:
            if end.code:
                raise AlphabarError("refused") from None
        return first.read_bytes()

    def _dataset(self) -> Dataset:
        source = open_source(str(self.material.pictures))
        return last(prepare(source, build_codec(self.recipe.data), self.recipe.data.fit))

    def _cached_dataset(self) -> Any:
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


class Plain(torch.nn.Module):
    """A network with the arguments of a denoiser's."""

    def __init__(self, layers: torch.nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor, t: torch.Tensor, c: object = None) -> torch.Tensor:
        """The layers' output, whatever the noise level."""
        return self.layers(x) + t.view(-1, 1, 1, 1)


TIMINGS = [Timing(InferenceRuntime(), 1.0, 0.5), Timing(InferenceRuntime("torch", "bf16"), 0.1, 0.0, True)]


def _kind_of(runtime: Runtime | None) -> Any:
    """What decides the numbers of a training; the rest is told the person."""
    return runtime and [getattr(runtime, key) for key in POSSIBLE]


def _finishing(records: Generator[Progress[Any], None, Any]) -> Iterator[Progress[Any]]:
    """The records of a generator, and one with the value that it returns."""
    result = yield from records
    yield Progress("", 1, 1, result)


def _weights(model: Any) -> Any:
    parts = [model.denoiser, *([model.early] if model.early else [])]
    tensors = [p.numpy().tobytes() for part in parts for p in part.state_dict().values()]
    return model.recipe, [hashlib.sha256(tensor).hexdigest() for tensor in tensors]


CACHES = {
    "extracted": "features",
    "channels": "the number of channels",
    "samples": "samples of a stopped evaluation",
    "inference": "timings of runtimes",
    "openvino": "a converted network",
}


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
        return f"{CACHES.get(parts[parts.index('cache') + 1], 'data')} in the cache"
    if path.parent.name in ("samples", "report_files") or path.name == "copies.png":
        return "a report's pictures and figures.json"
    if path.parent.name in (".recipe", "sampled", "restored", "degraded"):
        return {".recipe": "the recipe's copy"}.get(path.parent.name, path.name)
    for folder, words in {"averages": "averages", "checkpoints": "a checkpoint", "model": "a model"}.items():
        if path.parent.name == folder or path.parent.parent.name == folder:
            return words
    return path.name


def _try(damage: Damage, path: Path, reader: Callable[[], Any], places: list[int]) -> list[str]:
    """The faults of some places of a file, all tried in one child."""

    def work() -> None:
        os.environ["ALPHABAR_CACHE"] = str(damage.cache)
        whole, right = path.read_bytes(), reader()
        for at in places:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << (at % 8)
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    passed = reader()
                if passed != right and not any(one.category is DamagedFile for one in said):
                    print(f"FAULT {path.name} byte {at}: another result without a word", flush=True)
            except AlphabarError:
                pass
            except BaseException as error:
                print(f"FAULT {path.name} byte {at}: {type(error).__name__}: {error}"[:200], flush=True)
            damage.restore() if "run" not in path.parts else path.write_bytes(whole)

    damage.restore()
    ended = run(work, folder=damage.folder)
    faults = [line for line in ended.said.splitlines() if line.startswith("FAULT")]
    return faults or ([ended.said[-300:]] if ended.code else [])
