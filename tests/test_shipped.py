"""The models that come with alphabar: whole, small, described, and drawing what they say."""

import numpy as np
import pytest

from alphabar.errors import AlphabarError
from alphabar.recipes.derive import distilled, finetuned
from alphabar.runs.model import holds_model, load_model, locate, shipped
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings


@pytest.fixture(scope="module", params=[path.name for path in shipped()])
def model(request):
    return load_model(request.param)


def test_there_is_one():
    assert "cars64" in [path.name for path in shipped()]
    assert holds_model(locate("cars64"))
    with pytest.raises(AlphabarError, match="shipped one: cars64"):
        load_model("cars65")


def test_it_is_small_and_has_a_card(model):
    folder = locate(model.path.name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for told in ("research", "lean", "limits", "images", "copies"):
        assert told in card.lower(), told
    assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".pkl", ".bin")]


def test_it_draws(model):
    *_, drawn = sample(model, 8, sampling_settings(model))
    pictures = drawn.result.numpy()
    assert pictures.shape == (8, 64, 64, 3)
    assert 40 < pictures.mean() < 215 and (pictures.std(axis=(1, 2)) > 20).all()
    # Neighbouring pixels of a picture are alike, those of noise are not.
    steps = np.abs(np.diff(pictures.astype(int), axis=2)).mean()
    assert steps < 0.5 * pictures.std()


def test_one_label_alone_can_be_asked(model):
    """Without guidance blowing up where the other labels are left open."""
    field = next(f for f in model.vocabulary.fields if f.name == "body")
    settings = sampling_settings(model, conditions=[{"body": name} for name in field.names[:4]], guidance=1.5)
    *_, drawn = sample(model, 8, settings)
    extreme = ((drawn.result == 0) | (drawn.result == 255)).float().mean()
    assert extreme < 0.3


def test_it_goes_on_in_batches_that_a_processor_can_bear(model):
    for recipe in (finetuned(model.recipe, "cars64"), distilled(model.recipe)):
        assert recipe.batch == 32
    rate = model.recipe.optimizer.learning_rate * (32 / model.recipe.batch) ** 0.5
    assert finetuned(model.recipe, "cars64").optimizer.learning_rate == pytest.approx(rate)
