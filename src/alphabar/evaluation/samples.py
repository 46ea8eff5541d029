"""The first stage of an evaluation: the samples and the real data that they are compared with."""

import hashlib
import json
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphabar.codecs.base import Codec, Unreadable, reader_of
from alphabar.codecs.image import ImageCodec
from alphabar.codecs.image_files import full_pixels
from alphabar.conditioning.label_frequencies import LabelFrequencies
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.items import Source, read
from alphabar.data.sources import open_source
from alphabar.diffusion.random import Noise, Purpose
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import Damaged, locked, read_document, warn_of_cache, write_document, writing
from alphabar.guidance import evaluates_early
from alphabar.inference.recorded import KEY, choose_or_repeat
from alphabar.inference.runtime import AUTO, missing, read_runtime
from alphabar.messages import Message, message
from alphabar.parts import Parts, Rows
from alphabar.progress import Progress, staged
from alphabar.runs.model import Model
from alphabar.runtime import Runtime, main_first
from alphabar.sampling.bound import weights_fingerprint
from alphabar.sampling.outputs import OVERVIEW, sampling_metadata
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import (
    SamplingSettings,
    nfe_per_sample,
    sampling_settings,
    uses_training_conditions,
)
from alphabar.training.labels import known_columns

BATCH = 64  # samples that are generated, and kept, at a time
GIVEN_UP_AFTER = 7 * 86_400.0  # seconds after which an evaluation that was stopped is not expected to go on
LOSSY = (".jpg", ".jpeg", ".jfif", ".jpe", ".webp")  # files that most often are compressed with losses


@dataclass(frozen=True)
class Reference:
    """The real data of an evaluation: indices of the items that count as training data, and of those held
    out.

    name: what to call the items in a report. held_out: the share of the data that is held out.
    """

    dataset: Dataset
    codec: Codec
    name: Message
    held_out: float
    train: NDArray[np.int64]
    held: NDArray[np.int64]


class Cache(NamedTuple):
    """The folder that keeps samples while they are evaluated, and the lock that an evaluation holds on it."""

    folder: Path
    claim: ExitStack


@dataclass(frozen=True)
class Samples:
    """The samples of an evaluation.

    items: (n, *codec.item_shape), read when they are needed. about: where they come from, as JSON holds it.
    notes: for the person who reads.
    conditioned_on: the items (n,) of the reference whose labels the samples were conditioned on, if they
        were.
    cache: what keeps generated samples, and features, until the evaluation is done.
    vocabulary: of the model that generated them, if it has conditions.
    """

    items: Rows
    codec: Codec
    about: dict[str, Any]
    notes: tuple[Message, ...] = ()
    conditioned_on: NDArray[np.int64] | None = None
    cache: "Cache | None" = None
    vocabulary: Vocabulary | None = None

    def kept(self, name: str) -> Path | None:
        """A folder of the cache for what is computed of them."""
        return self.cache and self.cache.folder / name

    def forget(self) -> None:
        """Removes what the cache keeps of them, once their evaluation is done."""
        if self.cache:
            shutil.rmtree(self.cache.folder, ignore_errors=True)
            self.cache.claim.close()


def read_reference(
    source: Source, codec: Codec, fit: str = "squash", held_out: float = 0.0
) -> Generator[Progress[Any], None, Reference]:
    """Decode the real data as a codec stores it, and split off the share that is held out."""
    with main_first():
        dataset = yield from staged(prepare(source, codec, fit), message("evaluation.reading_reference"))
    train, held = dataset.split(held_out)
    sides = reader_of(codec).spatial
    size = sides[0] if len(set(sides)) == 1 else "×".join(map(str, reversed(sides)))
    name = message(
        "evaluation.data", name=dataset.name, fingerprint=dataset.fingerprint[:8], fit=fit, size=size
    )
    return Reference(dataset, codec, name, held_out, train, held)


def generate_samples(
    model: Model, n: int, settings: SamplingSettings | None, reference: Reference, precision: str = AUTO
) -> Generator[Progress[Any], None, Samples]:
    """Generate n samples of a model.

    A conditional model whose settings leave the conditions open takes the labels of items of the reference,
    drawn at random, so that each sample can be compared with what it was conditioned on.
    """
    settings = settings or sampling_settings(model)
    about = sampling_metadata(model, settings, str(model.path), recipe=model.recipe.name)
    notes: tuple[Message, ...] = ()
    conditioned_on = None
    if uses_training_conditions(model, settings):
        at = Noise(settings.seed, range(n), Purpose.TRAINING_CONDITIONS).uniform(0) * len(reference.train)
        chosen = reference.train[at.long().numpy()]
        if conditions := known_conditions(model, reference.dataset, chosen):
            conditioned_on, settings = chosen, replace(settings, conditions=conditions)
        else:
            notes = (message("evaluation.other_labels"),)
    cache, parts, about["runtime"] = yield from _generate(model, n, settings, precision)
    about["seconds_per_sample"] = parts.total("seconds") / n
    return Samples(parts.rows("items"), model.codec, about, notes, conditioned_on, cache, model.vocabulary)


def _generate(
    model: Model, n: int, settings: SamplingSettings, precision: str
) -> Generator[Progress[Any], None, tuple[Cache, Parts, dict[str, Any]]]:
    """The cache and the parts of n samples, each with the seconds that it took, and how the network computed.

    The cache keeps them until they are used: an evaluation that is stopped goes on after the last part that
    it finished, and processes share the parts.
    """
    made_from = [weights_fingerprint(model, settings), settings.to_dict(), BATCH, precision]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    cache, evaluations = _cache(key), n * nfe_per_sample(model, settings)
    begun = cache.folder / "runtime.json"
    if Runtime().is_main:
        _remove_unrepeatable(cache.folder, begun, model)
    model, runtime = yield from staged(
        choose_or_repeat(
            model,
            begun,
            evaluations=evaluations,
            batch=BATCH,
            precision=precision,
            early=evaluates_early(settings.guidance),
        )
    )
    with suppress(AlphabarError):  # a cache that cannot be written only costs time
        with writing(cache.folder):
            cache.folder.mkdir(parents=True, exist_ok=True)
        write_document(begun, {KEY: runtime})

    def make(part: range) -> Iterator[Progress[dict[str, Tensor]]]:
        before = perf_counter()
        items = yield from staged(sample(model, len(part), settings, first=part.start, batch=BATCH))
        tensors = {"items": items, "seconds": torch.tensor(perf_counter() - before)}
        yield Progress(message("sampling.stage"), 1, 1, tensors)

    parts = Parts(cache.folder, n, BATCH)
    for record in parts.fill(make):
        yield replace(record, stage=message("evaluation.generating"))
    return cache, parts, runtime


def _remove_unrepeatable(folder: Path, begun: Path, model: Model) -> None:
    """Removes samples from the cache, with a warning, to which others with the same bits cannot be added.

    So it is where the file ``begun``, which says how they were computed, is missing or damaged, and where
    this machine lacks what they were computed with.
    """
    if not folder.is_dir():
        return
    try:
        if missing(read_runtime(read_document(begun).get(KEY)), model.device) is None:
            return
    except (FileNotFoundError, Damaged, UsageError):
        pass
    if any(folder.iterdir()):
        warn_of_cache(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _cache(key: str) -> Cache:
    """The cache for some samples; what evaluations that were given up left in others is removed.

    Raises AlphabarError where another evaluation of these samples is at work.
    """
    folder, claim = cache_root() / "samples" / key, ExitStack()
    _remove_given_up(folder.parent)
    at_work = AlphabarError("evaluation.at_work")
    if Runtime().is_main:
        try:
            claim.enter_context(locked(cache_root() / "locks" / key, at_work))
        except AlphabarError as problem:
            if problem is at_work:
                raise
            # A cache that cannot be written keeps nothing, and needs no lock.
    return Cache(folder, claim)


def _remove_given_up(samples: Path) -> None:
    """Removes what evaluations generated that were stopped long ago and have not gone on since."""
    for folder in samples.glob("*"):
        with suppress(OSError):  # another process may remove it first
            if time.time() - folder.stat().st_mtime > GIVEN_UP_AFTER:
                shutil.rmtree(folder)


def compression_note(samples: Source, reference: Source) -> list[Message]:
    """A sentence where either the samples or the real images, but not both, were stored with losses."""
    lossy = [_is_lossy(source) for source in (samples, reference)]
    if lossy[0] == lossy[1]:
        return []
    return [message("evaluation.samples_compressed" if lossy[0] else "evaluation.reference_compressed")]


def _is_lossy(source: Source) -> bool:
    """Whether most files are of a lossy kind by their names, or without suffixes the first by its content."""
    names = [item.key.rpartition("/")[2].lower() for item in source.items]
    if any("." in name for name in names) or not names:
        return sum(name.endswith(LOSSY) for name in names) > len(names) / 2
    try:
        data = read(source, source.items[0])
    except Unreadable:
        return False
    return isinstance(data, bytes) and (data.startswith(b"\xff\xd8") or data[8:12] == b"WEBP")


def read_samples(folder: Path, n: int) -> Generator[Progress[Any], None, Samples]:
    """Look at the first n images that lie in a folder itself; those in sub-folders do not count.

    Raises AlphabarError where there are fewer, where one cannot be read, or where they differ in size.
    """
    source = open_source(folder)
    items = [item for item in source.items if "/" not in item.key]
    if len(items) < n:
        raise _too_few(folder, source, n, len(items))

    def picture(i: int) -> NDArray[np.uint8]:
        try:
            return full_pixels(read(source, items[i]))
        except Unreadable as error:
            raise AlphabarError(
                "evaluation.unusable_sample", file=folder / items[i].key, reason=error.message
            ) from None

    shape, content = picture(0).shape, hashlib.sha256()
    for i in range(n):
        found = picture(i)
        if found.shape != shape:
            height, width, _ = found.shape
            raise AlphabarError(
                "evaluation.other_size", file=folder / items[i].key, width=width, height=height
            )
        content.update(found.tobytes())
        yield Progress(message("evaluation.reading_samples"), i + 1, n)
    rows = Rows(n, lambda index: torch.from_numpy(np.stack([picture(int(i)) for i in index])))
    height, width, _ = shape
    about = {"folder": str(folder)}
    return Samples(rows, ImageCodec((height, width)), about, cache=_cache(content.hexdigest()[:32]))


def _too_few(folder: Path, source: Source, n: int, found: int) -> AlphabarError:
    """The error for a folder that itself holds fewer images than are to be evaluated."""
    below = [item.key.rpartition("/")[0] for item in source.items if "/" in item.key]
    below = [name for name in below if name.partition("/")[0] != OVERVIEW]
    if below:
        names = sorted(set(below))
        return AlphabarError(
            "evaluation.samples_in_folders",
            folder=folder,
            found=found,
            below=len(below),
            names=", ".join(names[:3]) + ", …" * (len(names) > 3),
            example=folder / names[0],
        )
    if found < 2:
        return AlphabarError("evaluation.almost_no_files", folder=folder, found=found)
    return AlphabarError("evaluation.too_few_files", folder=folder, n=n, found=found)


def known_conditions(model: Model, dataset: Dataset, index: NDArray[np.int64]) -> LabelFrequencies:
    """The labels of items as conditions of a model; () where the data carries other labels than the model."""
    on = model.recipe.condition.on
    if on is None or model.vocabulary is None:
        return ()
    try:
        columns = known_columns(dataset, on, model.codec)
        same = build_vocabulary(on, columns) == model.vocabulary
    except AlphabarError:  # the data has no such labels
        return ()
    return tuple(model.vocabulary.labels(columns, index.tolist())) if same else ()
