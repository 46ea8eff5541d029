"""An evaluation says everything at once, and nothing that its pictures cannot bear."""

import errno
import itertools
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.conditioning.fields import Categorical, Text
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary, label_columns
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.sources import open_source
from alphabar.data.toycars.source import ToyCars
from alphabar.errors import AlphabarError, UsageError
from alphabar.evaluation import attributes, samples
from alphabar.evaluation.attributes import common_words, known_attributes, told_attributes
from alphabar.evaluation.evaluate import evaluate
from alphabar.evaluation.record import Evaluation, add_to_run, read_evaluations
from alphabar.evaluation.samples import compression_note, read_samples
from alphabar.files import DamagedFile, write_document
from alphabar.inference.runtime import PLAIN
from alphabar.messages import unpack_messages
from alphabar.metrics.features import EXTRACTORS, Features
from alphabar.progress import Progress
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.reporting.report_data import report_data
from alphabar.runs.model import load_model
from alphabar.runs.run import Run
from alphabar.sampling.bound import weights_fingerprint
from alphabar.sampling.settings import sampling_settings
from alphabar.training.labels import conditions_of
from refusals import refused
from test_compare import make_run


class Blocks:
    """A quick extractor: mean colours of 4×4 blocks."""

    name, dim, protocol = "blocks", 48, "mean colours of 4×4 blocks"

    def __init__(self, device: str = "cpu"):
        pass

    def __call__(self, pictures: Tensor) -> Features:
        n, h, w, _ = pictures.shape
        means = pictures.float().reshape(n, 4, h // 4, 4, w // 4, 3).mean(dim=(2, 4)).flatten(1)
        return Features(means, means[:, :10] / 40)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(EXTRACTORS, "blocks", Blocks)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("evaluation") / "run", "data.held_out=0.3")


def toys(n: int, seed: int = 0) -> Tensor:
    *_, last = prepare(ToyCars(n, seed=seed), ImageCodec(16))
    assert last.result is not None
    return torch.from_numpy(np.array(last.result.items))


def evaluated(what: object, against: str, n: int, **settings: object) -> Evaluation:
    *_, last = evaluate(what, against, n=n, features="blocks", **settings)  # type: ignore[arg-type]
    assert last.result is not None
    return last.result


@pytest.fixture
def drawing(monkeypatch):
    """Have the model draw what the test says."""

    def draws(pictures: Tensor) -> None:
        def sample(model, n, settings, first, batch):
            yield Progress("sampling", 1, 1, pictures[first : first + n])

        monkeypatch.setattr(samples, "sample", sample)

    return draws


def test_a_model_that_draws_new_toycars_is_clean(run, drawing):
    drawing(toys(80, seed=5))
    result = evaluated(load_model(run), "toycars:200", 80)
    assert result.held_out is not None and result.memorization is not None and result.nearest is not None
    train, held = result.report, result.held_out
    assert train.reference_n + held.reference_n == 200 and held.n == train.n == 80
    assert held.baseline_reference_n == held.reference_n and held.baseline_n == 80
    assert train.reference.endswith("without the 30% held out") and "held-out pictures of" in held.reference
    assert result.memorization.train_n == train.reference_n
    assert result.memorization.thresholds.held_out_n == held.reference_n
    assert result.memorization.sentence.identifier == "metrics.no_copies"
    assert result.nearest.samples.shape == result.nearest.originals.shape == (8, 16, 16, 3)
    # "class" is the body, and is not told twice; numbers are no kinds
    names = {each.attribute for each in result.attribute_frequencies}
    assert names <= {"background", "body", "color", "time", "view"} and "time" in names
    assert result.appearance[0].statistic == "brightness"
    assert result.about["seconds_per_sample"] > 0
    assert all("not comparable with papers" in each.warnings[0] for each in (train, held))
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["held_out"]["n"] == 80 and told["memorization"]["copies"] == result.memorization.copies


def test_a_model_that_copies_is_caught_with_the_originals(run, drawing):
    model = load_model(run)
    *_, last = prepare(ToyCars(200), ImageCodec(16))
    index, _ = last.result.split(0.3)
    copied = torch.from_numpy(last.result.items[index[:30]]).flip(2)
    drawing(torch.cat([copied, toys(20, seed=5)]))
    result = evaluated(model, "toycars:200", 50)
    assert result.memorization.copies >= 30 and result.memorization.sentence.identifier == "metrics.copies"
    pairs = [p for p in result.memorization.nearest[:20] if p.sample < 30]
    assert len(pairs) >= 19 and all(p.train == p.sample and p.mirrored for p in pairs)
    # shown the way the original lies
    assert (result.nearest.samples.int() - result.nearest.originals.int()).abs().double().mean() < 2


def test_attributes_of_what_no_real_picture_looks_like_are_not_counted(run, drawing):
    blocks = torch.randint(0, 2, (60, 4, 4, 3), generator=torch.Generator().manual_seed(0)) * 255
    drawing(blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8))
    result = evaluated(load_model(run), "toycars:200", 60)
    assert result.attribute_frequencies == ()
    assert any("values are not counted: only 0%" in note for note in result.notes)


def test_pictures_of_the_reference_among_samples_are_said(tmp_path):
    for i, picture in enumerate(toys(30).numpy()):
        Image.fromarray(picture).save(tmp_path / f"{i:03d}.png")
    other = tmp_path.with_name(f"{tmp_path.name}-other")
    shutil.copytree(tmp_path, other)
    for i, picture in enumerate(toys(12, seed=1).numpy()):
        Image.fromarray(picture).save(other / f"{i:03d}.png")
    result = evaluated(other, str(tmp_path), 30)
    assert result.report.warnings[0].startswith("18 of 30 samples are images of the reference")
    assert result.held_out is None and result.memorization is None
    assert any("no search for copies: 0 images" in note for note in result.notes)


def test_samples_in_a_folder_may_be_grey_and_not_square(tmp_path):
    for i, picture in enumerate(toys(20, seed=7).numpy()):
        Image.fromarray(picture).convert("L").resize((24, 16)).save(tmp_path / f"{i:03d}.png")
    result = evaluated(tmp_path, "toycars:100", 20)
    assert result.report.reference.endswith("squash to 24×16 px") and result.report.n == 20
    chroma = next(each for each in result.appearance if each.statistic == "chroma")
    assert chroma.samples == 0 < chroma.data
    Image.new("RGB", (16, 16)).save(tmp_path / "019.png")
    with pytest.raises(AlphabarError, match=r"019\.png is 16×16 px, unlike the images before it"):
        evaluated(tmp_path, "toycars:100", 20)
    with pytest.raises(AlphabarError, match=r"holds 20 images, fewer than the 21"):
        evaluated(tmp_path, "toycars:100", 21)


@pytest.mark.parametrize(
    ("channels", "said"),
    [(1, "; grey pictures as RGB"), (3, ""), (4, "; transparent pictures laid on white")],
)
def test_items_of_every_kind_are_compared_as_pictures_and_the_protocol_says_so(run, drawing, channels, said):
    colors = toys(40, seed=5)
    opaque = torch.full_like(colors[..., :1], 255)
    drawing({1: colors[..., :1], 3: colors, 4: torch.cat([colors, opaque], dim=-1)}[channels])
    plain = load_model(run)
    model = replace(plain, recipe=with_settings(plain.recipe, [f"data.channels={channels}"]))
    result = evaluated(model, "toycars:150", 40)
    protocol = result.report.protocol.split("; kernel distance")[0]
    assert protocol == Blocks.protocol + (f"; {said}" if channels == 1 else "") or protocol.endswith(
        str(said)
    )
    chroma = next(each for each in result.appearance if each.statistic == "chroma")
    assert (chroma.data == chroma.samples == 0) == (channels == 1)
    assert result.nearest.samples.shape == (8, 16, 16, 3)


def test_words_of_class_names_are_kinds_where_classes_are_many():
    makes = ["Audi", "BMW", "Fiat", "Ford", "Opel", "Seat", "Saab", "Volvo", "Lada"]
    labels = [f"{make} {i} {kind} 2012" for kind in ("Coupe", "SUV") for i in range(2) for make in makes] * 4
    found = common_words(labels)
    assert {"class named “Coupe”", "class named “SUV”"} <= set(found) and not any("2012" in k for k in found)
    assert found["class named “SUV”"].count("with") == len(labels) // 2


@pytest.fixture
def asked(monkeypatch):
    """What a model is asked for; it draws toycars whatever that is."""
    asked = []

    def sample(model, n, settings, first, batch):
        asked.extend(settings.conditions[first : first + n])
        yield Progress("sampling", 1, 1, toys(first + n, seed=3)[first:])

    monkeypatch.setattr(samples, "sample", sample)
    return asked


def test_as_data_asks_for_what_the_data_holds(run, asked):
    *_, last = prepare(ToyCars(200), ImageCodec(16))
    plain = load_model(run)
    recipe = with_settings(plain.recipe, ["condition.on=attributes"])
    conditional = replace(
        plain,
        recipe=recipe,
        vocabulary=conditions_of(last.result, recipe)[0],
        label_frequencies=conditions_of(last.result, recipe)[1],
    )
    result = evaluated(conditional, "toycars:200", 150)
    for i, row in enumerate(asked):
        assert set(row) == {field.name for field in conditional.vocabulary.fields}, i
    colours = {a["color"] for a in last.result.attributes}
    assert len(asked) == 150 and len({a["color"] for a in asked}) > len(colours) / 2
    assert {a.attribute for a in result.condition_agreement} == {"time", "view"}  # of others too few are real
    told = json.loads(json.dumps(result.to_dict()))
    assert told["conditions"] == "as the data" and told["condition_agreement"][0]["n"] <= 150


def test_data_of_other_labels_is_judged_as_the_training_pictures_were(run, asked):
    plain = load_model(run)
    recipe = with_settings(plain.recipe, ["condition.on=class"])
    known = Vocabulary((Categorical("class", ("cat", "dog")),))
    frequencies = ({"class": "cat"}, {"class": "dog"})
    model = replace(plain, recipe=recipe, vocabulary=known, label_frequencies=frequencies)
    result = evaluated(model, "toycars:200", 150)
    assert asked == list(frequencies) and not result.condition_agreement
    assert any("carries other labels" in note for note in result.notes)
    unconditional = sampling_settings(plain, conditions=())
    assert evaluated(plain, "toycars:200", 150, settings=unconditional).about["conditions"] == ()


def test_a_label_classifier_counts_values_by_pictures_that_it_held_out(run, drawing, monkeypatch):
    """Here it knows the time of day from nothing but a number that it is given for each picture."""
    *_, last = prepare(ToyCars(600), ImageCodec(16))
    plain, dataset = load_model(run), last.result
    nights = {
        p.tobytes(): a["time"] == "night" for p, a in zip(dataset.items, dataset.attributes, strict=True)
    }
    asked: list[int] = []

    def features_of(denoiser, codec, pictures):
        asked.append(len(pictures))
        return torch.tensor([[float(nights[p.numpy().tobytes()])] for p in pictures]) + 0.1 * torch.randn(
            len(pictures), 1, generator=torch.Generator().manual_seed(len(asked))
        )

    monkeypatch.setattr(attributes, "classifier_features", features_of)
    at_night = np.array([a["time"] == "night" for a in dataset.attributes])
    drawing(torch.from_numpy(dataset.items[np.flatnonzero(at_night)[:140]]))
    recipe = with_settings(named_recipe("classifier"), ["data.size=16", "data.held_out=0.4"])
    classifier = replace(plain, recipe=recipe)
    found = {
        each.attribute: each
        for each in evaluated(plain, "toycars:600", 140, label_classifier=classifier).attribute_frequencies
    }
    held = len(dataset.split(0.4)[1])
    assert asked == [held, 140] and found["time"].real_n == held
    night = next(share for share in found["time"].frequencies if share.value == "night")
    assert night.verdict == "over" and night.samples > 0.95
    with pytest.raises(UsageError, match="does not predict labels"):
        evaluated(plain, "toycars:600", 140, label_classifier=plain)
    with pytest.raises(UsageError, match=r"shape \(32, 32, 3\).*samples have shape \(16, 16, 3\)"):
        evaluated(
            plain,
            "toycars:600",
            140,
            label_classifier=replace(plain, recipe=with_settings(recipe, ["data.size=32"])),
        )


def small_pictures(folder, n):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / f"{i}.png")


@pytest.mark.parametrize("itself", [0, 1, 3])
def test_samples_in_sub_folders_are_said_to_lie_there(tmp_path, itself):
    small_pictures(tmp_path / "s/a", 4), small_pictures(tmp_path / "s/b", 4)
    small_pictures(tmp_path / "s", itself)
    values = {"found": itself, "below": 8, "names": "a, b", "example": tmp_path / "s/a"}
    with refused("evaluation.samples_in_folders", AlphabarError, **values):
        list(read_samples(tmp_path / "s", 8))


def test_a_single_sample_is_not_advised_to_be_evaluated(tmp_path):
    small_pictures(tmp_path / "one", 1), small_pictures(tmp_path / "one/overview", 3)
    with refused("evaluation.almost_no_files", AlphabarError, found=1):
        list(read_samples(tmp_path / "one", 8))
    small_pictures(tmp_path / "five", 5)
    with refused("evaluation.too_few_files", AlphabarError, found=5):
        list(read_samples(tmp_path / "five", 8))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no picture"])
def test_a_damaged_sample_is_named(tmp_path, damage):
    small_pictures(tmp_path, 3)
    file = tmp_path / "1.png"
    file.write_bytes(damage(file.read_bytes()))
    with refused("evaluation.unusable_sample", AlphabarError, file=file):
        list(read_samples(tmp_path, 3))


def test_a_run_keeps_messages_by_identifier_with_the_load_of_the_machine(run, drawing, tmp_path):
    drawing(toys(40, seed=5))
    kept = Run(shutil.copytree(run, tmp_path / "run"))
    result = evaluated(load_model(kept.path), "toycars:200", 40)
    add_to_run(kept, result)
    (stored,) = json.loads((kept.path / "evaluation.json").read_text(encoding="utf-8"))
    assert {w["message"] for w in stored["warnings"]} >= {"metrics.not_comparable", "metrics.small_n"}
    assert stored["memorization"]["sentence"]["values"]["copies"] == result.memorization.copies
    assert stored["reference"]["values"]["n"] == result.report.reference_n
    assert {"machine", "cores", "memory", "load"} == set(stored["machine"])
    read = unpack_messages(stored)
    assert read["reference"] == result.report.reference and read["warnings"] == list(result.report.warnings)
    assert "imágenes de toycars" in read["reference"].in_language("es")
    assert "distancia de kernel (blocks)" in [m["name"].in_language("es") for m in read["metrics"]]
    # as JSON for programs it is English
    assert json.loads(json.dumps(result.to_dict()))["reference"] == result.report.reference


@pytest.mark.parametrize("name", ["fid", "KID"])
def test_a_metric_given_as_features_is_told(name, run):
    with pytest.raises(
        UsageError, match=f"'{name}' is a metric, not a feature network: --features inception"
    ):
        evaluate(run, "toycars:200", features=name)


def test_too_few_samples_are_told_before_any_work(run):
    with pytest.raises(UsageError, match="5 samples are too few to evaluate: give -n 6 or more"):
        evaluate(run, "nowhere", n=5)


def test_what_a_stopped_evaluation_generated_is_kept_for_a_week(run, tmp_path, monkeypatch):
    drawn = iter([Progress("sampling", 1, 1, toys(20))])
    monkeypatch.setattr(samples, "sample", lambda *_, **__: drawn)
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path))
    old, new = (cache_root() / "samples" / name for name in ("old", "new"))
    for folder, days in ((old, 8), (new, 6)):
        (folder / "000000000-64").mkdir(parents=True)
        os.utime(folder, (time.time() - 86_400 * days,) * 2)
    evaluated(load_model(run), "toycars:200", 20)
    assert new.exists() and not old.exists()


def test_samples_are_those_of_the_guiding_model_too(run, monkeypatch):
    model = load_model(run, "cpu")
    plain = sampling_settings(model)
    guided = replace(plain, guidance=({"name": "classifier", "model": "judge"},))
    found = []
    for weights in ("before", "after"):
        judge = SimpleNamespace(fingerprint=weights)
        monkeypatch.setattr("alphabar.sampling.bound.load_model", lambda *_, judge=judge: judge)
        found.append(weights_fingerprint(model, guided))
    assert weights_fingerprint(model, plain) == model.fingerprint and len({*found, model.fingerprint}) == 3


def test_an_evaluation_that_is_stopped_while_it_generates_goes_on(run, monkeypatch):
    made = []

    def sample(model, n, settings, first, batch):
        made.append(first)
        if len(made) == 3:
            raise KeyboardInterrupt
        yield Progress("sampling", 1, 1, toys(n, seed=first))

    monkeypatch.setattr(samples, "sample", sample)
    monkeypatch.setattr(samples, "BATCH", 30)
    model = load_model(run)
    with pytest.raises(KeyboardInterrupt):
        evaluated(model, "toycars:200", 80)
    (folder,) = (cache_root() / "samples").iterdir()
    file = folder / "000000030-30" / "rows.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")  # damaged: it is made again
    with pytest.warns(DamagedFile, match="made again"):
        stopped = evaluated(model, "toycars:200", 80)
    assert made == [0, 30, 60, 30, 60]
    assert not list((cache_root() / "samples").iterdir())
    assert stopped.report.to_dict() == evaluated(model, "toycars:200", 80).report.to_dict()
    assert made[5:] == [0, 30, 60]


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"{"),
        lambda file: file.write_bytes(file.read_bytes().replace(b"torch", b"tosch", 1)),
        lambda file: file.write_bytes(file.read_bytes().replace(b'"batch": 30', b'"batch": 31')),
        lambda file: write_document(file, {"runtime": {"engine": "another"}}),
        lambda file: write_document(file, {"runtime": PLAIN.to_dict() | {"precision": "fp16"}}),  # of a GPU
    ],
)
def test_samples_whose_computation_is_not_known_are_made_again(run, monkeypatch, harm):
    made = []

    def sample(model, n, settings, first, batch):
        made.append(first)
        if len(made) == 2:
            raise KeyboardInterrupt
        yield Progress("sampling", 1, 1, toys(n, seed=first))

    monkeypatch.setattr(samples, "sample", sample)
    monkeypatch.setattr(samples, "BATCH", 30)
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32"])
    model = load_model(run)
    with pytest.raises(KeyboardInterrupt):
        evaluated(model, "toycars:200", 60)
    (folder,) = (cache_root() / "samples").iterdir()
    harm(folder / "runtime.json")
    with pytest.warns(DamagedFile, match="made again"):
        evaluated(model, "toycars:200", 60)
    assert made == [0, 30, 0, 30]


def test_a_changed_digit_of_an_evaluation_is_noticed(run, tmp_path, drawing):
    drawing(toys(60, seed=5))
    kept, file = Run(tmp_path), tmp_path / "evaluation.json"
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    result = evaluated(load_model(run), "toycars:200", 60)
    for _ in range(2):
        add_to_run(kept, result)
    assert len(read_evaluations(kept)[0]) == 2 and "sha256" not in read_evaluations(kept)[0][0]
    before, _, after = file.read_text().partition('"n": 60')
    file.write_text(f'{before}"n": 61{after}')
    whole, problem = read_evaluations(kept)
    assert len(whole) == 1 and problem.identifier == "evaluation.damaged_entries"
    assert problem in report_data(tmp_path, tmp_path / "report_files", "run", "en")["warnings"]


def test_samples_that_another_evaluation_reads_are_not_taken_from_it(run):
    model = load_model(run)
    first = evaluate(model, "toycars:200", n=20, features="blocks")
    for record in first:
        if record.stage == "features of the samples":
            break
    with refused("evaluation.at_work", AlphabarError):
        evaluated(model, "toycars:200", 20)
    *_, last = first
    assert last.result is not None and evaluated(model, "toycars:200", 20).report == last.result.report


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"{}", b"[3]"])
def test_a_finished_evaluation_is_kept_whatever_the_file_held(run, tmp_path, drawing, content):
    drawing(toys(60, seed=5))
    result, kept = evaluated(load_model(run), "toycars:200", 60), Run(tmp_path)
    file = tmp_path / "evaluation.json"
    if content is not None:
        file.write_bytes(content)
    notes = add_to_run(kept, result)
    whole, problem = read_evaluations(kept)
    assert len(whole) == 1 and whole[0]["metrics"] and (tmp_path / "copies.png").is_file()
    assert bool(problem) == (content == b"[3]")
    damaged = content in (b"", b"\xff", b"{}")
    assert [n.identifier for n in notes] == ["evaluation.set_aside"] * damaged
    assert (tmp_path / "damaged-evaluation.json").exists() == damaged


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "unreadable"])
def test_a_file_that_cannot_be_read_is_waited_for_by_nobody_and_stays(
    run, tmp_path, drawing, monkeypatch, kind
):
    drawing(toys(60, seed=5))
    result, kept = evaluated(load_model(run), "toycars:200", 60), Run(tmp_path)
    file = tmp_path / "evaluation.json"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"[]")

        def broken(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(Path, "read_bytes", broken)
    about = file.lstat()
    assert [n.identifier for n in add_to_run(kept, result)] == ["evaluation.not_kept"]
    assert read_evaluations(kept)[0] == []
    assert read_evaluations(kept)[1].identifier == "evaluation.damaged_record"
    assert file.lstat().st_ino == about.st_ino and [p.name for p in tmp_path.iterdir()] == [file.name]


def test_an_evaluation_that_cannot_be_written_is_only_a_note(run, tmp_path, drawing, monkeypatch):
    drawing(toys(60, seed=5))
    result = evaluated(load_model(run), "toycars:200", 60)

    def full(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", full)
    notes = add_to_run(Run(tmp_path), result)
    assert [n.identifier for n in notes] == ["evaluation.not_kept"] and "Read-only" in notes[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("samples", "reference", "note"),
    [
        ("jpg", "png", ["evaluation.samples_compressed"]),
        ("png", "webp", ["evaluation.reference_compressed"]),
        ("jpeg", "jpg", []),
        ("png", "bmp", []),
        ("jpg", "jpg in parquet", []),
        ("jpg", "png in parquet", ["evaluation.samples_compressed"]),
        ("png", "webp in parquet", ["evaluation.reference_compressed"]),
    ],
)
def test_compression_of_one_side_alone_is_said(tmp_path, samples, reference, note):
    for name, suffix in (("samples", samples), ("reference", reference)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / name / f"{i}.{suffix.split()[0]}")
        if "parquet" in suffix:
            pyarrow = pytest.importorskip("pyarrow")
            cells = [{"bytes": file.read_bytes()} for file in sorted((tmp_path / name).iterdir())]
            shutil.rmtree(tmp_path / name)
            (tmp_path / name).mkdir()
            file = tmp_path / name / "0.parquet"
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"image": cells}), file)
    said = compression_note(open_source(tmp_path / "samples"), open_source(tmp_path / "reference"))
    assert [each.identifier for each in said] == note


def labelled(rows) -> Dataset:
    """A data set of labels alone: rows of (class or None, attributes)."""
    names, n = sorted({name for name, _ in rows if name}), len(rows)
    labels = np.array([names.index(name) if name else -1 for name, _ in rows])
    attributes = tuple(attributes for _, attributes in rows)
    nothing = (None,) * n
    return Dataset(
        "", np.zeros((n, 1)), nothing, labels, tuple(names), nothing, attributes, (), "", np.zeros(n)
    )


def test_agreement_is_told_of_what_the_condition_tells_alone():
    rows = [
        (
            kind,
            {"body": kind, "wheels": {"bus": 6}.get(kind, 4), "color": color, "split": split, "age": str(i)},
        )
        for i, (kind, color, split) in enumerate(
            itertools.product(["bus", "car", "van"], ["red", "blue"], ["train", "test"])
        )
    ]
    data = labelled(rows * 4 + [(None, {"body": "car", "wheels": 3, "color": "red"})])
    index = np.arange(len(data.labels))

    def told(on):
        columns = label_columns(on, data.labels, data.classes, data.attributes)
        return set(told_attributes(build_vocabulary(on, columns), data, index))

    assert "split" not in dict(known_attributes(data, index))
    by_class = told("class")
    assert "color" not in by_class and by_class >= {"body", "wheels"}
    assert told("attributes") >= {"body", "wheels", "color"}
    only_color = Vocabulary((Categorical("color", ("blue", "red")),))
    assert set(told_attributes(only_color, data, index)) == {"color"}
    assert set(told_attributes(Vocabulary((Text("caption", ""),)), data, index)) >= {"body", "color"}
