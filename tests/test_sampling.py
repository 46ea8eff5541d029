"""Settings of a sampling, what is counted and compared with them, and what a sampling leaves on the disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alphabar.sampling.bound
from alphabar.codecs.png_metadata import read_png_metadata
from alphabar.conditioning.fields import Categorical
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.errors import AlphabarError, UsageError
from alphabar.guidance import GUIDANCES
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.result_folder import check_free
from alphabar.runs.model import Model, build_denoiser
from alphabar.sampling.comparison import comparison_settings, per_sample_settings, side_by_side
from alphabar.sampling.outputs import ReverseProcessRecorder, sampling_metadata
from alphabar.sampling.sample import sample
from alphabar.sampling.sample_folder import SampleFolder
from alphabar.sampling.settings import (
    SamplingSettings,
    nfe_per_sample,
    sampling_settings,
    uses_training_conditions,
)
from refusals import refused

SIZE = 16
LABELS = Vocabulary((Categorical("class", ("first", "second")),))
NETWORK = ["network.widths=[8,16]", "network.head_dim=8", "network.dropout=0"]


def shaken(denoiser):
    """The denoiser with small random weights also where they begin at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return denoiser.eval().requires_grad_(False)


def made(name, *settings, vocabulary=None, frequencies=()):
    """A model of random weights of that recipe, with an early snapshot."""
    recipe = with_settings(named_recipe(name), [f"data.size={SIZE}", *settings])
    flat = DataStatistics(torch.zeros(3, SIZE, SIZE), torch.eye(192))
    denoisers = [shaken(build_denoiser(recipe, vocabulary)) for _ in range(2)]
    denoisers[1].network.output.weight.data *= 0.5
    return Model(denoisers[0], recipe, flat, 7, Path(name), vocabulary, frequencies, denoisers[1])


@pytest.fixture(scope="module")
def model():
    frequencies = ({"class": "first"}, {"class": "second"}, {})
    return made("lean", "condition.on=class", *NETWORK, vocabulary=LABELS, frequencies=frequencies)


@pytest.fixture(scope="module")
def unconditional():
    return made("lean", *NETWORK)


@pytest.fixture(scope="module")
def classifier():
    recipe = with_settings(
        named_recipe("classifier"),
        [f"data.size={SIZE}", "condition.on=class", "network.widths=[8,16]", "network.head_dim=8"],
    )
    flat = DataStatistics(torch.zeros(3, SIZE, SIZE), torch.eye(192))
    return Model(shaken(build_denoiser(recipe, LABELS)), recipe, flat, 7, Path("classifier"), LABELS)


@pytest.fixture
def loaded(classifier, monkeypatch):
    """The paths of the models that a sampling loads, each of which is the classifier."""
    paths = []
    monkeypatch.setattr(
        alphabar.sampling.bound, "load_model", lambda path, device: paths.append(path) or classifier
    )
    return paths


EVERYTHING = {
    "seed": 3,
    "sampler": {"name": "ddim", "eta": 0.5},
    "timesteps": "karras",
    "steps": 3,
    "initial_noise": "gaussian",
    "conditions": [{"class": "first"}, {"class": "second"}],
    "guidance": {
        "classifier_free": {"scale": 2.0, "negative": "second"},
        "pag": {"scale": 1.0, "interval": (0.5, 2.0)},
        "sag": 0.5,
        "autoguidance": 1.5,
        "classifier": {"scale": 2.0, "model": "classifier"},
    },
    "guidance_interval": (0.1, 50.0),
}


def test_settings_survive_json(model, loaded):
    settings = sampling_settings(model, **EVERYTHING)
    assert {spec["name"] for spec in settings.guidance} == set(GUIDANCES)
    values = json.loads(json.dumps({"model": "lean", "position": 1, **settings.to_dict()}))
    again = SamplingSettings.from_dict(values)
    assert again == settings
    assert torch.equal(last(sample(model, 2, settings)), last(sample(model, 2, again)))


@pytest.mark.parametrize(
    "values", [{}, {"seed": "x"}, {"guidance": [{"name": "pga"}]}, {"conditions": "as the data"}]
)
def test_what_is_no_settings_is_refused(model, values):
    whole = sampling_settings(model).to_dict() if values else {}
    with pytest.raises(UsageError):
        SamplingSettings.from_dict({**whole, **values})


def test_the_recipe_decides_what_is_not_given(model):
    own = model.recipe.sampling
    settings = sampling_settings(model)
    assert (settings.sampler, settings.timesteps, settings.steps) == (own.sampler, own.timesteps, own.steps)
    assert list(settings.guidance) == own.guidance and settings.guidance_interval is None
    assert uses_training_conditions(model, settings)
    assert not uses_training_conditions(model, sampling_settings(model, conditions=()))


def test_another_sampler_brings_its_own_timesteps_and_steps(model):
    settings = sampling_settings(model, sampler="ancestral")
    assert (settings.timesteps["name"], settings.steps) == ("uniform", 250)
    settings = sampling_settings(model, sampler="heun", steps=6)
    assert (settings.timesteps["name"], settings.steps) == ("linear_beta", 6)
    again = sampling_settings(model, sampler={"name": "unipc", "order": 3})
    assert again.timesteps == model.recipe.sampling.timesteps


def test_the_recipes_guidance_stays_unless_it_is_named(model):
    (own,) = model.recipe.sampling.guidance
    assert sampling_settings(model, guidance={"pag": 2}).guidance == ({**own, "scale": 2.0},)
    both = sampling_settings(model, guidance={"sag": 1.0}).guidance
    assert both[0] == own and both[1]["name"] == "sag"
    assert sampling_settings(model, guidance={"pag": 0}).guidance == ()
    assert sampling_settings(model, guidance={}).guidance == ()
    within = sampling_settings(model, guidance_interval=(1.0, 2.0))
    assert within.guidance == ({**own, "interval": None},)
    assert within.guidance_interval == (1.0, 2.0)


def test_a_guidance_of_the_recipe_without_its_means_is_left_out():
    blind = made("lean", *NETWORK, "network.attention=0")
    assert sampling_settings(blind).guidance == ()
    with pytest.raises(UsageError, match="self-attention"):
        sample(blind, 1, sampling_settings(blind, guidance={"pag": 2.0}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "from 1 to 100000 steps"),
        ({"sampler": "hoin"}, "heun"),
        ({"guidance": {"pga": 1}}, "pag"),
        ({"guidance": {"pag": {"scael": 1}}}, "scale"),
        ({"guidance_interval": (5.0, 1.0)}, "lower one first"),
    ],
)
def test_impossible_settings_are_refused(model, settings, message):
    with pytest.raises(UsageError, match=message):
        sampling_settings(model, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditions": [{"class": "third"}]}, "third"),
        ({"conditions": [{"class": "first"}, {"color": "red"}]}, "color"),
        ({"guidance": {"classifier_free": 2.0}, "conditions": ()}, "--class"),
        ({"guidance": {"classifier": {"scale": 1.0}}}, "--guidance-classifier"),
    ],
)
def test_what_the_model_cannot_do_is_said_before_anything_is_generated(model, settings, message):
    with pytest.raises(UsageError, match=message):
        sample(model, 2, sampling_settings(model, **settings))


def test_a_model_without_conditions_takes_none(unconditional):
    with pytest.raises(UsageError, match="trained without conditions"):
        sample(unconditional, 1, sampling_settings(unconditional, conditions=[{"class": "first"}]))


def test_models_that_sample_in_their_own_way_leave_nothing_open(classifier):
    gan = replace(made("lean", *NETWORK), recipe=with_settings(named_recipe("gan"), [f"data.size={SIZE}"]))
    for wrong in ({"steps": 5}, {"sampler": "heun"}, {"initial_noise": "gaussian"}):
        with pytest.raises(UsageError, match=f"leave out .*{next(iter(wrong))}"):
            sampling_settings(gan, **wrong)
    with pytest.raises(UsageError, match="generates no samples"):
        sampling_settings(classifier)


def test_a_sample_does_not_depend_on_its_batch(model):
    settings = sampling_settings(model, steps=3, conditions=[{"class": "first"}, {"class": "second"}])
    whole = last(sample(model, 5, settings)).int()
    assert (last(sample(model, 5, settings, batch=2)).int() - whole).abs().max() <= 1
    assert (last(sample(model, 2, settings, first=3)).int() - whole[3:]).abs().max() <= 1
    assert len(whole.unique(dim=0)) == 5


def test_progress_counts_steps_times_samples(model):
    *records, end = sample(model, 5, sampling_settings(model, steps=3), batch=2)
    assert [r.done for r in records] == [2, 4, 6, 8, 10, 12, 13, 14, 15]
    assert {r.total for r in records} == {15} and end.done == end.total == 15
    assert end.result.shape == (5, SIZE, SIZE, 3) and end.result.dtype == torch.uint8
    assert [r.preview.first for r in records] == [0, 0, 0, 2, 2, 2, 4, 4, 4]


def test_samples_that_are_not_finite_are_an_error(model):
    broken = build_denoiser(model.recipe, LABELS).requires_grad_(False)
    broken.network.output.bias.data.fill_(float("nan"))
    with pytest.raises(AlphabarError, match="not finite"):
        last(sample(replace(model, denoiser=broken), 1, sampling_settings(model, steps=2)))


def test_the_guidance_classifier_is_loaded_once(model, loaded):
    settings = sampling_settings(
        model, steps=2, conditions=[{"class": "first"}], guidance={"classifier": {"model": "runs/c"}}
    )
    plain = last(sample(model, 6, replace(settings, guidance=()), batch=2))
    guided = last(sample(model, 6, settings, batch=2))
    assert loaded == ["runs/c"]
    assert not torch.equal(plain, guided)


def test_a_classifier_lets_an_unconditional_model_be_conditioned(unconditional, loaded):
    def towards(label):
        guidance = {"classifier": {"model": "runs/c", "scale": 50.0}}
        settings = sampling_settings(unconditional, steps=3, conditions=[{"class": label}], guidance=guidance)
        return last(sample(unconditional, 2, settings))

    assert not torch.equal(towards("first"), towards("second"))


def test_evaluations_of_guidance_are_counted(model):
    def count(interval=None, **guidance):
        settings = sampling_settings(
            model, steps=4, sampler="euler", guidance={"pag": 0.0, **guidance}, guidance_interval=interval
        )
        return nfe_per_sample(model, settings)

    assert count() == 4
    assert count(autoguidance=2.0) == count(sag=1.0) == count(classifier_free=2.0) == 8
    assert count(autoguidance=2.0, classifier_free=2.0) == 12
    assert count(autoguidance=2.0, interval=(1e8, 1e9)) == 4
    assert count(classifier={"model": "runs/c"}) == 4  # its network is no denoiser


def test_a_guidances_scale_or_a_condition_can_be_compared(model):
    settings = sampling_settings(model, conditions=[{"class": "first"}])
    scales = comparison_settings(model, settings, "pag", ["0", "2.5"])
    (own,) = model.recipe.sampling.guidance
    assert [variant.guidance for variant in scales] == [(), ({**own, "scale": 2.5},)]
    classes = comparison_settings(model, settings, "class", ["first", "second"])
    assert [variant.conditions for variant in classes] == [({"class": "first"},), ({"class": "second"},)]
    every = comparison_settings(model, sampling_settings(model), "class", ["first"])
    assert every[0].conditions == ({"class": "first"},)
    negative = sampling_settings(model, guidance={"classifier_free": {"scale": 1, "negative": "first"}})
    (against,) = comparison_settings(model, negative, "guidance", ["3"])
    assert against.guidance[0] == {
        "name": "classifier_free",
        "scale": 3.0,
        "interval": None,
        "negative": "first",
    }
    with pytest.raises(UsageError, match="'strong' is not a number"):
        comparison_settings(model, settings, "guidance", ["1", "strong"])
    with pytest.raises(UsageError, match="pag"):
        comparison_settings(model, settings, "pga", ["1"])


def test_compared_samples_of_one_noise_follow_each_other(model):
    settings = sampling_settings(model, conditions=[{"class": "first"}])
    variants = comparison_settings(model, settings, "class", ["first", "second"])
    items, each = side_by_side([torch.tensor([10, 11]), torch.tensor([20, 21])], variants)
    assert items.tolist() == [10, 20, 11, 21]
    assert [(e["position"], e["conditions"][0]["class"]) for e in each] == [
        (0, "first"), (0, "second"), (1, "first"), (1, "second"),
    ]  # fmt: skip


def test_written_samples_say_how_to_generate_them_again(model, tmp_path):
    settings = sampling_settings(model, steps=3)
    items = last(sample(model, 4, settings))
    about = sampling_metadata(model, settings, "lean", ema=0.1)
    assert about["conditions"] == "as the data" and about["images"] == 7 and about["ema"] == 0.1
    grid = Image.new("RGB", (4, 4))
    out = tmp_path / "out"
    folder = SampleFolder(out, model.codec, about, 4)
    folder.begin()
    for i, own in enumerate(per_sample_settings(settings, 4)):
        folder.write(i, items[i], own)
    folder.write_overview("grid", grid)
    assert sorted(file.name for file in out.iterdir()) == [
        "000000.png", "000001.png", "000002.png", "000003.png", "overview", "samples.json",
    ]  # fmt: skip
    assert [file.name for file in (out / "overview").iterdir()] == ["grid.png"]
    assert json.loads((out / "samples.json").read_text())["n"] == 4
    assert np.array_equal(np.asarray(Image.open(out / "000002.png")), items[2].numpy())
    written = read_png_metadata(out / "000002.png")
    again = last(sample(model, 1, SamplingSettings.from_dict(written), first=written["position"]))
    assert (again[0].int() - items[2].int()).abs().max() <= 1
    with pytest.raises(AlphabarError, match="not empty"):
        check_free(out)
    assert not list(tmp_path.glob(".*"))


def test_the_recorder_keeps_ten_moments_of_the_first_samples(model):
    recorder = ReverseProcessRecorder(model, 12)
    records = list(map(recorder.record, sample(model, 3, sampling_settings(model, steps=12), batch=2)))
    assert len(recorder.columns) == len(recorder.chosen) == 10
    assert all(column.shape == (3, SIZE, SIZE, 3) for column in recorder.columns)  # of both batches
    assert torch.equal(recorder.columns[-1], records[-1].result)


@pytest.mark.parametrize("out", [".", "..", "./", "/", "../here"])
def test_the_working_folder_is_no_folder_for_results(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(AlphabarError) as error:
        check_free(Path(out))
    assert error.value.message.identifier in ("sampling.working_folder", "sampling.folder_not_empty")


def test_a_place_for_results_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused("sampling.working_folder", AlphabarError):
        check_free(Path("."))
    check_free(Path("new/folders"))
    (tmp_path / "file").write_text("x")
    for taken in ("file", "file/folder"):
        with refused("sampling.folder_in_file", AlphabarError):
            check_free(Path(taken))
    with refused("files.cannot_write", AlphabarError):
        check_free(Path("x" * 300))
