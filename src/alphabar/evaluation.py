"""Judging samples, drawn from a model or lying in a folder, against real pictures."""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphabar.conditioning.conditioning import describe
from alphabar.data.cache import Dataset, cache_root, prepare, read
from alphabar.data.decode import full_pixels
from alphabar.data.sources import open_source
from alphabar.diffusion.noise import Noise
from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.features import EXTRACTORS, Extractor, Features, extract
from alphabar.metrics.judge import Judgement, judge
from alphabar.metrics.memorization import Memorization, Seen, memorization, thresholds
from alphabar.metrics.shares import (
    FEWEST,
    Agreement,
    Drift,
    Shares,
    Thirds,
    agreement,
    distances,
    drift,
    shares,
)
from alphabar.sampling import Settings, asks_as_data, sample, settings
from alphabar.training.checkpoint import pack_json, write_file
from alphabar.training.methods import features_of
from alphabar.training.run import Model, Run
from alphabar.training.runtime import extractor_device
from alphabar.training.trainer import known_columns

SHOWN = 8  # samples beside the training pictures they are nearest to
REAL_ENOUGH = 0.5  # precision over that of real pictures, from which on a classifier is asked about samples
MOST_VALUES = 32  # of an attribute whose shares are counted
MOST_WORDS = 8  # of class names, where there are more classes than that


@dataclass(frozen=True)
class Evaluating:
    """How far an evaluation has come. The last record carries the result."""

    stage: str
    done: int
    total: int
    result: "Evaluation | None" = None


class Twins(NamedTuple):
    """The samples nearest to training pictures, (k, h, w, 3) uint8, and those; a sample may be mirrored."""

    samples: Tensor
    originals: Tensor


@dataclass(frozen=True)
class Evaluation:
    """A judgement and what was judged.

    judgement: against the pictures trained on. held_out: against those that the model never saw, which are
    fewer. memorization, twins: None where nothing was held out. shares: one for each attribute of the data.
    agreements: likewise, where the samples were asked for what the data holds.
    notes: what could not be said, and why.
    """

    judgement: Judgement
    held_out: Judgement | None
    memorization: Memorization | None
    twins: Twins | None
    shares: tuple[Shares, ...]
    drift: tuple[Drift, ...]
    brightness: Thirds
    agreements: tuple[Agreement, ...]
    notes: tuple[str, ...]
    about: dict[str, Any]  # what drew the samples, at what cost, and when

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, all but the pictures."""
        return {
            **self.about,
            **self.judgement.to_dict(),
            "held_out": self.held_out and self.held_out.to_dict(),
            "memorization": self.memorization and self.memorization.to_dict(),
            "shares": [s.to_dict() for s in self.shares],
            "drift": [d._asdict() for d in self.drift],
            "brightness": self.brightness._asdict(),
            "agreements": [asdict(a) for a in self.agreements],
            "notes": list(self.notes),
        }


def evaluate(
    what: Model | str | Path,
    against: str | Path,
    *,
    n: int = 2000,
    features: str = "lite0",
    how: Settings | None = None,
    weights: Path | None = None,
    teller: Model | None = None,
) -> Generator[Evaluating, None, None]:
    """Judge n samples against real pictures: how good, copied or not, and whom they leave out.

    what: a model, from which n pictures are drawn, or a folder of pictures, of which the first n count.
    against: the data, as for training. Its pictures are fitted as the model's recipe says, or squashed to
        the folder's size. Those that the model held out are a reference of their own, and tell copies from
        chance.
    how: how samples are drawn. Where it asks for every kind, as by default, a conditional model is asked for
        what is known of pictures of this data, drawn at random, and told how often the samples agree.
    teller: a model of the recipe classifier, trained on pictures of the same size, that tells the kinds in
        place of one on the features. What it held out itself says how often it errs.
    features: the name of the feature network. weights: its weight file, where it takes one.

    Yields records; the last one carries the ``Evaluation``. Raises AlphabarError where a folder's pictures
    are fewer than n or differ in size.
    """
    if n < 2:
        raise UsageError(f"-n must be at least 2, not {n}")
    spec = {"name": features, "weights": str(weights)} if weights else features
    extractor = EXTRACTORS.build(spec, device=extractor_device())
    source = open_source(against)
    size, fit, held_out = 0, "squash", 0.0
    if isinstance(what, Model):
        recipe = what.recipe
        size, fit, held_out = recipe.data.size, recipe.data.fit, recipe.data.held_out
    else:
        pictures = yield from _folder_pictures(Path(what), n)
        size = pictures.shape[1]
        about: dict[str, Any] = {"folder": str(what)}
    for prepared in prepare(source, size, fit):
        yield Evaluating("reading the reference", prepared.done, prepared.total)
    dataset = prepared.dataset
    assert dataset is not None
    train, held = dataset.split(held_out)
    notes: list[str] = []
    likened: np.ndarray | None = None  # the training pictures that the samples are asked to be like
    if isinstance(what, Model):
        how = how or settings(what)
        about = {"model": str(what.path), "recipe": recipe.name, "images": what.images, **how.to_dict()}
        if asks_as_data(what, how):
            at = Noise(how.seed, range(n), "as data").uniform(0) * len(train)
            chosen = train[at.long().numpy()]
            about["ask"] = "as the data"
            if wanted := _known(what, dataset, chosen):
                likened, how = chosen, replace(how, ask=wanted)
            else:
                notes.append("asked for what its training pictures are: these carry other labels")
        before = perf_counter()
        pictures = yield from _drawn(what, n, how)
        about["seconds_per_sample"] = (perf_counter() - before) / n
    cache = cache_root() / "features"
    fake = yield from _features("looking at the samples", extractor, pictures, None)
    every = yield from _features("looking at the reference", extractor, dataset.pictures, cache)
    real = _chosen(every, train)
    named = f"{dataset.name} ({dataset.fingerprint[:8]}), {fit} to {size} px"
    known = {"extractor": extractor.name, "protocol": extractor.protocol}
    without = f", without the {held_out:.0%} held out" if held_out else ""
    judgement = judge(
        fake, real, **known, reference=f"{len(train)} pictures of {named}{without}", whole=not held_out
    )
    shared = _shared(pictures, dataset.pictures[train])
    if shared:
        told = (
            f"{shared} of {n} samples are pictures of the reference, pixel for pixel: the distances flatter"
        )
        judgement = replace(judgement, warnings=(told, *judgement.warnings))
    beside = copies = twins = None
    if len(held) >= FEWEST:
        beside = judge(
            fake,
            _chosen(every, held),
            **known,
            reference=f"{len(held)} held-out pictures of {named}",
            stand_in=real,
        )
        train_pictures = torch.from_numpy(dataset.pictures[train])
        held_pictures = torch.from_numpy(dataset.pictures[held])
        mirrored = yield from _features("looking for copies", extractor, pictures.flip(2), None)
        calm = yield from _features("looking for copies", extractor, held_pictures.flip(2), cache)
        unseen = Seen(held_pictures, every.features[held], calm.features)
        below = thresholds(unseen, train_pictures, real.features)
        drawn = Seen(pictures, fake.features, mirrored.features)
        copies = memorization(drawn, train_pictures, real.features, below)
        shown = copies.nearest[:SHOWN]
        ours = [pictures[p.sample].flip(1) if p.mirrored else pictures[p.sample] for p in shown]
        twins = Twins(torch.stack(ours), train_pictures[[p.train for p in shown]])
    else:
        notes.append(
            f"no held-out reference, no search for copies: {len(held)} pictures are held out,"
            f" it takes {FEWEST} or more"
        )
    # what tells the kinds: real pictures of known ones, and what a classifier decides by
    examples, real_looks, fake_looks = train, real.features, fake.features
    if teller is not None:
        examples = _unlearnt(teller, dataset, size)
        yield Evaluating("telling kinds", 0, 1)
        real_looks = features_of(teller.denoiser, torch.from_numpy(dataset.pictures[examples]))
        fake_looks = features_of(teller.denoiser, pictures)
    kinds: list[Shares] = []
    precision = judgement["precision"]
    alike = precision.value >= REAL_ENOUGH * (precision.floor or 1.0)
    if not alike:
        notes.append(
            f"kinds are not counted: {precision.value:.0%} of the samples lie among real pictures, of which a"
            " classifier trained on them could tell the kind"
        )
    for attribute, values in _attributes(dataset, examples) if alike else ():
        yield Evaluating("counting kinds", len(kinds), len(kinds) + 1)
        try:
            kinds.append(shares(attribute, values, real_looks, fake_looks))
        except AlphabarError as problem:
            notes.append(str(problem))
    agreed: list[Agreement] = []
    if likened is not None:
        every_asked, known_of = dict(_attributes(dataset, likened)), dict(_attributes(dataset, train))
        for attribute, values in _attributes(dataset, examples):
            yield Evaluating("comparing with what was asked", len(agreed), len(agreed) + 1)
            asked = every_asked.get(attribute, ())
            with suppress(AlphabarError):
                found = agreement(attribute, values, real_looks, asked, fake_looks)
                of = distances(known_of.get(attribute, ()), real.features, asked, fake.features)
                agreed.append(replace(found, distances=of))
    changes, thirds = drift(torch.from_numpy(dataset.pictures[train]), pictures)
    about["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    result = Evaluation(
        judgement, beside, copies, twins, tuple(kinds), changes, thirds, tuple(agreed), tuple(notes), about
    )
    yield Evaluating("done", 1, 1, result)


def _known(model: Model, dataset: Dataset, index: np.ndarray) -> tuple[dict[str, str], ...]:
    """What is known of pictures, as one would ask the model for it; () where they carry other labels."""
    kind = model.recipe.condition.on
    if kind is None or model.conditioning is None:
        return ()
    try:
        known = known_columns(dataset, kind)
        same = describe(kind, known) == model.conditioning
    except AlphabarError:  # they carry none
        return ()
    return tuple(model.conditioning.wording(known, index.tolist())) if same else ()


def _unlearnt(teller: Model, dataset: Dataset, size: int) -> np.ndarray:
    """The pictures of the data that a classifier was not trained on. Raises UsageError for no classifier."""
    if teller.recipe.method["name"] != "classifier":
        raise UsageError(
            f"{teller.path} tells no kinds: train one with --recipe classifier --condition attributes"
        )
    if teller.recipe.data.size != size:
        raise UsageError(
            f"{teller.path} tells pictures of {teller.recipe.data.size} px, these have {size}: train another"
        )
    return dataset.split(teller.recipe.data.held_out)[1]


def _chosen(features: Features, index: np.ndarray) -> Features:
    logits = features.logits
    return Features(features.features[index], None if logits is None else logits[index])


def _shared(pictures: Tensor, reference: np.ndarray) -> int:
    """How many pictures are in the reference, pixel for pixel."""
    known = {blake2b(picture.tobytes(), digest_size=16).digest() for picture in reference}
    return sum(blake2b(p.tobytes(), digest_size=16).digest() in known for p in pictures.numpy())


def _attributes(dataset: Dataset, index: np.ndarray) -> Iterator[tuple[str, Sequence[str | None]]]:
    """What is known of the pictures chosen, by name: the class and every attribute of a few values.

    Of many classes with names of several words ("Audi TTS Coupe 2012") the words count: an attribute each.
    """
    labels = [dataset.classes[i] if i >= 0 else None for i in dataset.labels[index]]
    rows = [dataset.attributes[i] for i in index]
    found: dict[str, list[str | None]] = {}
    for name in sorted({key for row in rows for key in row}):
        column = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, str | bool | int) for value in column):
            found[name] = [None if value is None else str(value) for value in column]
    if labels not in found.values():
        if len(dataset.classes) <= MOST_VALUES:
            found["class"] = labels
        else:
            found |= _words(labels)
    for name, values in found.items():
        if 2 <= len({v for v in values if v is not None}) <= MOST_VALUES:
            yield name, values


def _words(labels: Sequence[str | None]) -> dict[str, list[str | None]]:
    """For each of the words that most pictures have in the name of their class: "with" or "without" it."""
    words = [set(label.split()) if label else None for label in labels]
    count = Counter(w for has in words if has for w in has if w.isalpha() and len(w) > 2)
    common = [w for w, times in count.most_common(MOST_WORDS) if FEWEST <= times <= len(labels) - FEWEST]
    return {
        f"class named “{w}”": [None if has is None else "with" if w in has else "without" for has in words]
        for w in common
    }


def add_to_run(run: Run, evaluation: Evaluation) -> None:
    """Append an evaluation to the run's evaluation.json, which the report shows."""
    path = run.path / "evaluation.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_file(path, pack_json([*earlier, evaluation.to_dict()]))


def _drawn(model: Model, n: int, how: Settings) -> Generator[Evaluating, None, Tensor]:
    for record in sample(model, n, how):
        yield Evaluating("drawing samples", record.done, record.total)
    assert record.pictures is not None
    return record.pictures


def _features(
    stage: str, extractor: Extractor, pictures: Any, cache: Path | None
) -> Generator[Evaluating, None, Features]:
    for record in extract(extractor, pictures, cache=cache):
        yield Evaluating(stage, record.done, record.total)
    assert record.features is not None
    return record.features


def _folder_pictures(folder: Path, n: int) -> Generator[Evaluating, None, Tensor]:
    """The first n pictures that lie in a folder itself, (n, h, w, 3); sub-folders do not count."""
    source = open_source(folder)
    items = [item for item in source.items if "/" not in item.key]
    if len(items) < n:
        raise AlphabarError(
            f"{folder} holds {len(items)} pictures, {n} are asked for: give -n {len(items)} or less"
        )
    pictures: list[np.ndarray] = []
    for item in items[:n]:
        picture = full_pixels(read(source, item))
        if picture.shape != (pictures[0].shape if pictures else (picture.shape[0],) * 2 + (3,)):
            raise AlphabarError(
                f"{folder / item.key} is {picture.shape[1]}×{picture.shape[0]} px:"
                " samples must be square and all of one size; resize them first"
            )
        pictures.append(picture)
        yield Evaluating("reading the samples", len(pictures), n)
    return torch.from_numpy(np.stack(pictures))
