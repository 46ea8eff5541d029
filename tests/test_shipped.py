"""The models that come with alphabar: whole, small, described, and generating what they promise."""

import numpy as np
import pytest

from alphabar.errors import AlphabarError
from alphabar.progress import last
from alphabar.recipes.derive import distilled, finetuned
from alphabar.runs.model import build_denoiser, holds_model, load_model, locate, shipped
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings


@pytest.fixture(scope="module", params=[path.name for path in shipped()])
def model(request):
    return load_model(request.param)


def test_models_are_shipped_and_found_by_their_names():
    assert [path.name for path in shipped()] == ["cars128", "cars64"]
    assert holds_model(locate("cars64")) and holds_model(locate("cars128"))
    with pytest.raises(AlphabarError, match="shipped models are: cars128, cars64"):
        load_model("cars65")


def test_a_shipped_model_is_small_and_has_a_card(model):
    folder = locate(model.path.name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("research", "lean", "limits", "images", "copies"):
        assert word in card.lower(), word
    assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".pkl", ".bin")]


def test_every_parameter_of_a_shipped_model_moved(model):
    """A wrongly compiled network keeps some at their beginning, though its loss falls."""
    beginning = dict(build_denoiser(model.recipe, model.vocabulary).network.named_parameters())
    moved = {
        name: (p - beginning[name]).norm().item() for name, p in model.denoiser.network.named_parameters()
    }
    assert len(moved) == len(beginning) == {"cars64": 134, "cars128": 170}[model.path.name]
    for name, distance in moved.items():
        length = beginning[name].norm().item() + distance
        assert distance > 0.01 * length, name  # float16 on the disk rounds by less than 0.001


def test_a_shipped_model_generates_pictures(model):
    pictures = last(sample(model, 8, sampling_settings(model))).numpy()
    assert pictures.shape == (8, *model.codec.item_shape)
    assert 40 < pictures.mean() < 215 and (pictures.std(axis=(1, 2)) > 20).all()
    # Neighbouring pixels of a picture are alike, those of noise are not.
    steps = np.abs(np.diff(pictures.astype(int), axis=2)).mean()
    assert steps < 0.5 * pictures.std()


def test_guidance_towards_one_label_of_several_keeps_samples_in_range(model):
    field = next(f for f in model.vocabulary.fields if f.name == "body")
    settings = sampling_settings(
        model, conditions=[{"body": name} for name in field.names[:4]], guidance={"classifier_free": 1.5}
    )
    items = last(sample(model, 8, settings))
    extreme = ((items == 0) | (items == 255)).float().mean()
    assert extreme < 0.3


def test_a_shipped_model_is_finetuned_and_distilled_in_small_batches(model):
    for recipe in (finetuned(model.recipe, "cars64"), distilled(model.recipe)):
        assert recipe.batch == 32
    rate = model.recipe.optimizer.learning_rate * (32 / model.recipe.batch) ** 0.5
    assert finetuned(model.recipe, "cars64").optimizer.learning_rate == pytest.approx(rate)
