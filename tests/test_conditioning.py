"""What a model may be asked for: vocabularies, requests, and a training that keeps them."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.cli.options import SamplingOptions
from alphabar.codecs.image import ImageCodec
from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.conditioning.fields import Categorical, Numeric
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary, label_columns
from alphabar.data.dataset import prepare
from alphabar.data.sources import open_source
from alphabar.diffusion.loss import drop_labels
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.methods.classifier import classifier_features
from alphabar.networks import NETWORKS
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import RECIPES, named_recipe
from alphabar.recipes.schema import make_recipe
from alphabar.reporting.report import write_report
from alphabar.reporting.report_figures import make_report_figures
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.sampling.comparison import comparison_settings, per_sample_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.sample_folder import SampleFolder
from alphabar.sampling.settings import (
    SamplingSettings,
    nfe_per_sample,
    sampling_settings,
    training_conditions,
    uses_training_conditions,
)
from alphabar.training.batches import TrainingBatches
from alphabar.training.labels import conditions_of, left_out_attributes, mirror_warning, others_than_numbers
from alphabar.training.loop import begin, train
from training_child import tiny_recipe

CARS = Categorical("class", ("BMW M3 Coupe 2012", "BMW M5 Sedan 2010", "BMW M5 Sedan 2012", "Audi TT"))
WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "early.safetensors")


@pytest.mark.parametrize(
    ("text", "number"),
    [("BMW M3 Coupe 2012", 0), ("bmw  m3 coupe 2012", 0), ("coupe M3", 0), ("M5 2012", 2), ("audi", 3)],
)
def test_words_of_a_name_are_enough(text, number):
    assert CARS.row(text) == number


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("M5 sedan", "could be BMW M5 Sedan 2010, BMW M5 Sedan 2012"),
        ("Audi TX", "'Audi TT'"),
        ("", "class ''"),
    ],
)
def test_what_is_no_single_name_is_told(text, told):
    with pytest.raises(UsageError, match=told):
        CARS.row(text)


@pytest.mark.parametrize(("known", "given"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_a_name_is_found_in_either_unicode_form(known, given):
    vocabulary = Vocabulary(
        (Categorical("ni\u00f1o", ("bar", known)), Categorical("tone", ("dark", "light")))
    )
    assert vocabulary.row({"nin\u0303o": given})[0] == 1
    assert vocabulary.attributes_in(f"{given} dark") == {"ni\u00f1o": known, "tone": "dark"}


def test_a_whole_name_wins_over_names_that_contain_it():
    assert Categorical("color", ("dark red", "red")).row("red") == 1


def test_columns_become_fields():
    colors = ["red", "blue", None, "red", "blue", "red"]
    rows = [
        {
            "color": c,
            "year": y,
            "file": f"{i}.jpg",
            "same": 1,
            "split": "ab"[i % 2],
            "parts": [i],
            "new": i < 3,
        }
        for i, (c, y) in enumerate(zip(colors, ["2001", "2003", "", "2001", "2003", "2002"], strict=True))
    ]
    known = label_columns("attributes", [-1] * 6, [], rows)
    vocabulary = build_vocabulary("attributes", known)
    color, new, year = vocabulary.fields
    assert color == Categorical("color", ("blue", "red")) and new == Categorical("new", ("false", "true"))
    assert year == Numeric("year", 2002.0, pytest.approx(math.sqrt(0.8)))
    table = vocabulary.rows(known)
    assert table.shape == (6, 3) and table[:, 0].isnan().tolist() == [c is None for c in colors]
    assert table[0].tolist() == pytest.approx([1, 1, -1 / math.sqrt(0.8)])
    years = table[:, 2][~table[:, 2].isnan()]
    assert years.mean().item() == pytest.approx(0, abs=1e-6)
    assert years.std(correction=0).item() == pytest.approx(1)
    words = vocabulary.labels(known, range(6))
    assert words[0] == {"color": "red", "new": "true", "year": "2001"}
    asked = torch.stack([vocabulary.row(row) for row in words])
    torch.testing.assert_close(asked, table, equal_nan=True)
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


def test_classes_that_look_like_numbers_are_names():
    known = label_columns("class", [0, 1, -1, 1], ["1", "10"], [{}] * 4)
    vocabulary = build_vocabulary("class", known)
    assert vocabulary.fields == (Categorical("class", ("1", "10")),)
    assert vocabulary.rows(known)[:, 0].nan_to_num(-1).tolist() == [0, 1, -1, 1]


def only_field(values):
    columns = label_columns("attributes", [], [], [{"x": value} for value in values])
    vocabulary = build_vocabulary("attributes", columns)
    (field,) = vocabulary.fields
    return vocabulary, columns, field


@pytest.mark.parametrize(
    "word",
    [
        *("NA", "-", "--", "?", ".", "unknown", "missing", "n.a.", "#DIV/0!"),
        *("1999?", "1990s", "soon"),
    ],
)
def test_one_word_in_a_column_of_numbers_is_unknown(word):
    vocabulary, columns, field = only_field([word, *(str(1990 + i % 9) for i in range(39))])
    assert isinstance(field, Numeric) and 1993 < field.mean < 1995
    assert vocabulary.rows(columns)[:, 0].isnan().tolist() == [True] + [False] * 39
    known = vocabulary.labels(columns, range(40))
    assert known[:2] == [{}, {"x": "1990"}] and vocabulary.row(known[0]).isnan().all()


@pytest.mark.parametrize("values", [["1", "2", "3", "NA"], ["1", "-", "2", "?", "-"]])
def test_words_for_unknown_numbers_do_not_depend_on_how_many_there_are(values):
    assert isinstance(only_field(values * 5)[2], Numeric)


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2", "3"] * 9 + ["other"],  # few numbers, which are names as "other" is
        ["1", "-"] * 9,  # marked or not
        [*(str(i) for i in range(9)), "red", "blue"] * 2,  # more than one other value in ten
    ],
)
def test_columns_of_numbers_and_words_are_names(values):
    assert only_field(values)[2] == Categorical("x", tuple(sorted(set(values))))


def test_names_of_single_pictures_are_classes_but_no_attributes():
    names = ["a", "b", "c"]
    vocabulary = build_vocabulary("class", label_columns("class", [0, 1, 2], names, [{}] * 3))
    assert vocabulary.fields == (Categorical("class", ("a", "b", "c")),)
    rows = [{"file": name, "even": i % 2 == 0} for i, name in enumerate(names)]
    assert [
        field.name
        for field in build_vocabulary("attributes", label_columns("attributes", [], [], rows)).fields
    ] == ["even"]


@pytest.mark.parametrize("kind", ["class", "attributes"])
def test_data_that_knows_nothing_is_told(kind):
    with pytest.raises(AlphabarError, match=f"--condition {kind}: the data has no labels"):
        build_vocabulary(kind, label_columns(kind, [-1, -1], [], [{}, {}]))


def test_columns_that_are_no_condition_are_named():
    rows = [{"price": f"{i},900 €", "place": "here"} for i in range(9)]
    with pytest.raises(AlphabarError, match=r"the data has no labels .* place, price\."):
        build_vocabulary("attributes", label_columns("attributes", [], [], rows))


def test_requests():
    vocabulary = Vocabulary((CARS, Numeric("year", 2000.0, 10.0)))
    row = vocabulary.row({"year": "2015"})
    assert row[0].isnan() and row[1] == 1.5
    assert vocabulary.row({}).isnan().all()
    with pytest.raises(UsageError, match=r"condition of this model 'yaer'.*'year'"):
        vocabulary.row({"yaer": "2015"})
    with pytest.raises(
        UsageError, match=r"year = 'old' is not a number. Its values are numbers, 2000 on average"
    ):
        vocabulary.row({"year": "old"})


CAR_ATTRIBUTES = Vocabulary(
    (
        Categorical("body", ("SUV", "coupe", "sedan")),
        Categorical("make", ("Aston Martin", "BMW", "Land Rover")),
        Categorical("model", ("3 Series", "M3", "Range Rover", "Range Rover Sport")),
        Numeric("year", 2000.0, 10.0),
    )
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("BMW M3 Coupe 2012", {"make": "BMW", "model": "M3", "body": "coupe", "year": "2012"}),
        ("land rover range rover suv", {"make": "Land Rover", "model": "Range Rover", "body": "SUV"}),
        ("BMW 3 Series 2005", {"make": "BMW", "model": "3 Series", "year": "2005"}),
        ("range rover sport", {"model": "Range Rover Sport"}),
        ("sedan", {"body": "sedan"}),
    ],
)
def test_a_class_asked_of_a_model_of_attributes_is_the_attributes_its_words_name(asked, expected):
    row, same = (CAR_ATTRIBUTES.row(request) for request in ({"class": asked}, expected))
    assert torch.equal(row.nan_to_num(-9), same.nan_to_num(-9))
    assert CAR_ATTRIBUTES.row({"class": asked, "body": "SUV"})[0] == 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("BMW M9 Coupe 2012", "body / make / model / year 'm9'.*'M3'"),
        ("2005 2006", "'2005 2006'"),
        ("", "''"),
    ],
)
def test_words_of_a_class_that_name_nothing_are_told(asked, told):
    with pytest.raises(UsageError, match=told):
        CAR_ATTRIBUTES.row({"class": asked})


def test_of_many_names_the_nearest_are_told():
    with pytest.raises(UsageError, match=r"'name 77'.* name 77, .*99 in all"):
        raise unknown("name", "nam 77", [f"name {i:02}" for i in range(99)])


def test_dropped_labels_are_unknown_as_a_whole():
    cond = torch.arange(8.0).reshape(4, 2)
    dropped = drop_labels(cond, torch.tensor([0.05, 0.5, 0.0999, 0.1]), 0.1)
    assert dropped.isnan().all(1).tolist() == [True, False, True, False]
    assert torch.equal(dropped[1::2], cond[1::2])
    assert drop_labels(cond[:, :0], torch.zeros(4), 0.1).shape == (4, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_conditions_or_says_which_does(name):
    values = RECIPES[name]().model_dump(mode="json") | {"condition": {"on": "class"}}
    if name in ("classic", "gan", "vae", "autoencoder"):
        with pytest.raises(UsageError, match=r"takes no condition: .*(recipe ddpm|lean)"):
            make_recipe(values)
        return
    assert make_recipe(values).condition.drop == 0.1
    with pytest.raises(UsageError, match="'class'"):
        make_recipe(values | {"condition": {"on": "clas"}})


@pytest.fixture(scope="module")
def two_colors(tmp_path_factory):
    """Red pictures and blue ones, in folders, and two of unknown class."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for i in range(24):
        color = np.array([[230, 20, 20], [20, 20, 230]][i % 2])
        place = folder / ("" if i < 2 else ["red", "blue"][i % 2])
        place.mkdir(exist_ok=True)
        pixels = np.clip(color + rng.integers(-15, 15, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def recipe():
    return with_settings(
        tiny_recipe("network.dropout=0", "optimizer.learning_rate=5e-3", "data.held_out=0"),
        ["condition.on=class", "condition.drop=0.25"],
    )


@pytest.fixture(scope="module")
def dataset(two_colors, recipe):
    *_, last = prepare(open_source(two_colors), ImageCodec(recipe.data.size))
    return last.result


@pytest.fixture(scope="module")
def model(dataset, recipe, tmp_path_factory):
    run = begin(tmp_path_factory.mktemp("runs") / "colors", recipe)
    list(train(dataset, run, runtime=Runtime(), images=3200))
    return load_model(run.path / "model")


def test_batches_carry_labels_and_hide_the_recipes_share(dataset, recipe):
    vocabulary, _, cond = conditions_of(dataset, recipe)
    feed = TrainingBatches(dataset, np.arange(24), recipe, build_denoiser(recipe, vocabulary).schedule, cond)
    batch, positions = feed.batch(range(480)), range(480)
    shown = cond[feed.items_at(positions)]
    hidden = batch.cond.isnan() & ~shown.isnan()
    assert 0.15 < hidden.float().mean() < 0.35
    assert torch.equal(batch.cond[~batch.cond.isnan()], shown[~batch.cond.isnan()])
    red = batch.x0[:, 0].mean((1, 2)) > 0
    labels = batch.cond[:, 0]
    assert (vocabulary.fields[0].names == ("blue", "red")) and torch.equal(
        labels[~labels.isnan()] == 1, red[~labels.isnan()]
    )
    again = feed.batch(range(96, 128))
    assert torch.equal(again.cond.isnan(), batch.cond[96:128].isnan())


def test_of_several_labels_some_are_shown_alone(dataset, recipe):
    """Or the model could be asked for all of them or none."""
    cond = torch.arange(48.0).reshape(24, 2).repeat_interleave(2, dim=1)[:, :3]  # fields of 1 and 2 columns
    feed = TrainingBatches(dataset, np.arange(24), recipe, build_denoiser(recipe).schedule, cond, (1, 2))
    hidden = feed.batch(range(2000)).cond.isnan()
    assert torch.equal(hidden[:, 1], hidden[:, 2])
    first, second = hidden[:, 0], hidden[:, 1]
    drop = recipe.condition.drop
    for found, wanted in (
        (first & second, drop + (1 - drop) / 8),
        (first & ~second, (1 - drop) / 8),
        (~first & second, (1 - drop) / 8),
    ):
        assert found.double().mean() == pytest.approx(wanted, abs=0.03)


CFG = {"classifier_free": 1.5}


def test_a_model_generates_the_class_of_its_condition(model):
    settings = sampling_settings(
        model, seed=3, steps=8, conditions=[{"class": "red"}, {"class": "blue"}], guidance=CFG
    )
    samples = last(sample(model, 8, settings))
    means = samples.float().mean((1, 2))
    assert (means[0::2, 0] > means[0::2, 2] + 40).all() and (means[1::2, 2] > means[1::2, 0] + 40).all()
    same = SamplingSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    other = last(sample(model, 3, same, batch=2))
    assert (other.int() - samples[:3].int()).abs().max() <= 1


def test_a_model_generates_each_class_as_often_as_its_data_has_it(model, tmp_path):
    labels = training_conditions(model)
    red = [row.get("class") for row in labels].count("red") / len(labels)
    assert red == pytest.approx(11 / 24, abs=0.08)
    assert {} in labels  # the labels of two images are unknown
    settings = sampling_settings(model, seed=3, steps=8, guidance=CFG)
    assert uses_training_conditions(model, settings)
    assert not sampling_settings(model, conditions=()).conditions
    (compared,) = comparison_settings(model, settings, "class", ["red"])
    assert compared.conditions == ({"class": "red"},)
    samples = last(sample(model, 12, settings))
    for condition, mean in zip(labels, samples.float().mean((1, 2)), strict=False):
        if condition:
            assert (mean[0] > mean[2]).item() == (condition["class"] == "red")
    folder = SampleFolder(tmp_path / "out", model.codec, settings.to_dict(), 12)
    folder.begin()
    folder.write(7, samples[7], per_sample_settings(settings, 12)[7])
    metadata = read_png_metadata(tmp_path / "out" / "000007.png")
    assert metadata["conditions"] == [labels[7]]
    alone = last(sample(model, 1, SamplingSettings.from_dict(metadata), first=metadata["position"]))
    assert (alone[0].int() - samples[7].int()).abs().max() <= 1


def end(model, settings):
    """The signals of two samples, before they are rounded to items."""
    *_, record = sample(model, 2, settings)
    return record.preview.step.x


@pytest.mark.parametrize("guidance", [{"sag": 0.5}, {"pag": 2.0}, {"autoguidance": 2.0}])
def test_every_guidance_changes_the_samples_and_only_inside_its_interval(model, guidance):
    plain = end(model, sampling_settings(model, steps=4))
    changed = end(model, sampling_settings(model, steps=4, guidance=guidance))
    outside = sampling_settings(model, steps=4, guidance_interval=(1e8, 1e9), guidance=guidance)
    assert (plain - changed).abs().max() > 1e-3
    assert torch.equal(plain, end(model, outside))


def with_guidance(model, interval=None):
    spec = {"name": "pag", "scale": 2.0, "interval": interval}
    return replace(model, recipe=with_settings(model.recipe, [f"sampling.guidance={json.dumps([spec])}"]))


def test_a_recipe_may_choose_a_guidance_and_a_person_may_switch_it_off(model):
    chosen = with_guidance(model)
    plain = end(model, sampling_settings(model, steps=4))
    given = end(model, sampling_settings(model, steps=4, guidance={"pag": 2.0}))
    assert not torch.equal(given, plain)
    assert torch.equal(end(chosen, sampling_settings(chosen, steps=4)), given)
    assert torch.equal(end(chosen, sampling_settings(chosen, steps=4, guidance={"pag": 0.0})), plain)


def test_a_recipe_may_choose_the_interval_of_a_guidance(model):
    ratios = (1.0, 1e6)
    chosen = with_guidance(model, list(ratios))
    own = sampling_settings(chosen, steps=4)
    within = sampling_settings(model, steps=4, guidance={"pag": 2.0}, guidance_interval=ratios)
    everywhere = sampling_settings(model, steps=4, guidance={"pag": 2.0})
    assert torch.equal(end(chosen, own), end(model, within))
    assert not torch.equal(end(chosen, own), end(model, everywhere))
    assert nfe_per_sample(model, own) == nfe_per_sample(model, within) < 8


def test_a_guidance_of_the_recipe_is_left_out_where_the_network_has_no_means_for_it(model):
    chosen = with_guidance(model)
    without = with_settings(chosen.recipe, ["network=tutorial_unet", "condition.on=none"])
    bare = replace(chosen, denoiser=build_denoiser(without))
    assert sampling_settings(bare).guidance == ()
    with pytest.raises(UsageError, match="self-attention"):
        sample(bare, 1, sampling_settings(bare, guidance={"pag": 2.0}))


def test_what_a_model_cannot_do_is_said(model):
    for wrong, message in (
        ({"conditions": [{"class": "green"}]}, "class 'green'"),
        ({"conditions": [{"color": "red"}]}, "condition of this model 'color'"),
        ({"guidance": {"classifier_free": 2.0}, "conditions": ()}, "the samples have none"),
        ({"guidance_interval": (5.0, 1.0)}, "contains no noise level"),
    ):
        with pytest.raises(UsageError, match=message):
            sample(model, 1, sampling_settings(model, **wrong))


@pytest.mark.parametrize(
    ("captions", "settings", "told"),
    [
        (
            ["a car", "seen from the front Left"],
            [],
            r"caption says left or right \('seen from the front Left'",
        ),
        (["a car", "seen from the front left"], ["data.flip=false"], None),
        (["bright as a leftover", None], [], None),
        (["turned left", "turned right"], ["condition.on=class"], None),
    ],
)
def test_labels_that_a_mirror_makes_wrong_are_told(dataset, recipe, captions, settings, told):
    said = replace(dataset, captions=tuple(captions * 12))
    warning = mirror_warning(said, with_settings(recipe, ["condition.on=text", *settings]))
    assert warning is None if told is None else re.search(told, warning)


def test_attributes_that_are_no_condition_are_told(dataset, recipe):
    rows = [
        {"tone": "ab"[i % 2], "id": f"x{i}", "place": "here", "split": "train", "none": None}
        for i in range(24)
    ]
    said = replace(dataset, attributes=tuple(rows))
    attributes = with_settings(recipe, ["condition.on=attributes"])
    told = left_out_attributes(said, attributes, conditions_of(said, attributes))
    assert told is not None and told.values["names"] == "id, place"
    said = replace(dataset, attributes=tuple({"tone": row["tone"]} for row in rows))
    assert left_out_attributes(said, attributes, conditions_of(said, attributes)) is None


def test_values_that_are_no_numbers_are_told(dataset, recipe):
    values = ["NA", "1999?", *(str(1990 + i) for i in range(22))]
    said = replace(dataset, attributes=tuple({"year": value} for value in values))
    attributes = with_settings(recipe, ["condition.on=attributes"])
    (told,) = others_than_numbers(said, attributes, conditions_of(said, attributes))
    assert told.values == {"name": "year", "count": 2, "first": "NA"}
    said = replace(dataset, attributes=tuple({"year": value} for value in range(24)))
    assert others_than_numbers(said, attributes, conditions_of(said, attributes)) == []


def test_a_resumed_training_is_the_uninterrupted_one(dataset, recipe, tmp_path):
    states = []
    for name, stops in (("straight", [96]), ("resumed", [48, 96])):
        run = begin(tmp_path / name, recipe)
        records = train(dataset, run, runtime=Runtime(), images=96)
        for record in records:
            if getattr(record, "images", 0) >= stops[0] and len(stops) > 1:
                records.close()
                break
        list(train(dataset, run, runtime=Runtime(), images=96))
        states.append(run.checkpoints.newest()[0].files)
    assert all(states[0][name] == states[1][name] for name in WEIGHTS)


def test_a_training_does_not_go_on_with_other_labels(dataset, recipe, tmp_path):
    run = begin(tmp_path / "run", recipe)
    list(train(dataset, run, runtime=Runtime(), images=16))
    other = replace(dataset, labels=dataset.labels[::-1].copy())
    with pytest.raises(AlphabarError, match="or their labels are not those"):
        list(train(other, run, runtime=Runtime(), images=32))


@pytest.fixture(scope="module")
def classifier(dataset, tmp_path_factory):
    """Trained on the colours, a third of them held out."""
    recipe = with_settings(
        named_recipe("classifier"),
        [
            "data.size=16",
            "data.held_out=0.3",
            "network.widths=[8,16]",
            "network.head_dim=16",
            "network.dropout=0",
            "batch=8",
            "ema.half_life=64",
            "optimizer.warm_up=64",
            "monitor.share=0",
            "condition.on=class",
        ],
    )
    run = begin(tmp_path_factory.mktemp("runs") / "classifier", recipe)
    list(train(dataset, run, runtime=Runtime(), images=1600))
    return load_model(run.path), [r for r in run.log.records() if r["kind"] == "accuracy"][-1]


@pytest.fixture(scope="module")
def unconditional(dataset, recipe, tmp_path_factory):
    run = begin(tmp_path_factory.mktemp("runs") / "all", with_settings(recipe, ["condition.on=none"]))
    list(train(dataset, run, runtime=Runtime(), images=1200))
    return load_model(run.path / "model")


class TestClassifier:
    def test_its_probabilities_are_those_of_its_answer(self):
        network = NETWORKS.build(
            {"name": "classifier", "widths": (8, 16), "head_dim": 16},
            channels=3,
            conditions=(("classes", 4), ("numbers", 2)),
        )
        x, c_noise = torch.randn(3, 3, 16, 16), torch.randn(3)
        nan = math.nan
        said = network.eval()(x, c_noise)
        cond = torch.tensor([[2, 0.5, -1.0], [nan, 0.5, -1.0], [nan, nan, nan]])
        classes = said[0, :4].softmax(0)[2].log()
        numbers = -(cond[:, 1:] - said[:, 4:]).square().sum(1) / 2
        expected = torch.stack([classes + numbers[0], numbers[1], torch.tensor(0.0)])
        assert torch.allclose(network.log_prob(x, c_noise, cond), expected, atol=1e-6)
        (right,) = network.correct(x, c_noise, cond)
        assert right[0] == float(said[0, :4].argmax() == 2) and right[1:].isnan().all()

    def test_it_is_right_about_held_out_images_of_little_noise(self, classifier):
        _, measured = classifier
        accuracy = dict(zip(measured["sigma"], measured["accuracy"], strict=True))
        assert measured["n"] > 0 and accuracy[0.1] == 1.0

    def test_its_last_layer_decides_by_its_features_whatever_the_batch(self, classifier, dataset):
        network = classifier[0].denoiser.network.eval()
        x, c_noise = torch.randn(3, 3, 16, 16), torch.randn(3)
        assert torch.equal(network.output(network.features(x, c_noise)), network(x, c_noise))
        pictures = torch.from_numpy(dataset.items[np.arange(100) % 24])
        found = classifier_features(classifier[0].denoiser, classifier[0].codec, pictures)
        assert torch.allclose(
            classifier_features(classifier[0].denoiser, classifier[0].codec, pictures[:3]),
            found[:3],
            atol=1e-5,
        )
        labels = dataset.labels[np.arange(100) % 24]
        assert (network.output(found).argmax(1).numpy() == labels)[labels >= 0].all()

    def test_its_report_shows_its_accuracy_and_no_samples(self, classifier, two_colors):
        path = classifier[0].path
        assert last(make_report_figures(Run(path), str(two_colors))) == path / "report_files"
        html = write_report(path).read_text(encoding="utf-8")
        assert "plot-accuracy" in html and "Classifier of noisy images" in html
        assert 'id="samples"' not in html and "GFLOP per evaluation" in html

    @pytest.mark.parametrize("which", ["conditional", "unconditional"])
    def test_its_gradient_guides_towards_a_class(self, which, classifier, request):
        """Also a model that is trained without classes, and has another schedule."""
        model = request.getfixturevalue("model" if which == "conditional" else which)
        conditions = [{"class": "red"}, {"class": "blue"}]
        guidance = {"classifier": {"scale": 3.0, "model": str(classifier[0].path)}}
        settings = sampling_settings(model, seed=3, steps=16, conditions=conditions, guidance=guidance)
        means = last(sample(model, 16, settings)).float().mean((1, 2))
        redder = means[:, 0] - means[:, 2]
        assert redder[0::2].mean() > redder[1::2].mean() + 100

    def test_what_it_cannot_do_is_said(self, classifier, model, unconditional, dataset):
        with pytest.raises(UsageError, match="generates no samples"):
            sampling_settings(classifier[0])
        guide = {"classifier": {"scale": 1.0, "model": str(classifier[0].path)}}
        no_guide = {"classifier": {"scale": 1.0, "model": str(model.path)}}
        for sampled, wrong, message in (
            (unconditional, {"guidance": guide}, "the samples have none"),
            (unconditional, {"guidance": guide, "conditions": [{"class": "green"}]}, "class 'green'"),
            (model, {"guidance": no_guide, "conditions": [{"class": "red"}]}, "--recipe classifier"),
        ):
            with pytest.raises(UsageError, match=message):
                sample(sampled, 1, sampling_settings(sampled, **wrong))
        with pytest.raises(UsageError, match="needs labels"):
            conditions_of(dataset, named_recipe("classifier"))


def test_a_name_in_full_is_not_mistaken_for_one_that_differs_in_case():
    field = Categorical("size", ("XL", "xl"))
    assert [field.row(name).item() for name in field.names] == [0, 1]


def test_numbers_far_from_those_of_the_data_are_told(capsys, monkeypatch):
    vocabulary = Vocabulary((Numeric("azimuth", 180.0, 100.0), Categorical("color", ("blue", "red"))))
    for labels in ({"azimuth": "-300"}, {"azimuth": "680", "color": "red"}, {"color": "blue"}, {}):
        assert vocabulary.far_numbers(labels) == [], labels
    (told,) = vocabulary.far_numbers({"azimuth": "1000180", "color": "red"})
    assert "azimuth = 1000180 is 10,000 standard deviations" in told and "180 ± 100" in told
    monkeypatch.setattr("alphabar.sampling.settings.sampling_settings", lambda *_, **__: None)
    SamplingOptions({"attributes": ["azimuth=1e6"]}).settings(SimpleNamespace(vocabulary=vocabulary), seed=0)
    assert "azimuth = 1e6 is 9,998 standard" in capsys.readouterr().err
