"""Guidance against closed forms (mixtures, one attention layer), and what every guidance keeps."""

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alphabar.conditioning.fields import Categorical
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import FunctionDenoiser, without_condition
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, count_nfe, last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import (
    GUIDANCES,
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    build_guidances,
    guidance_class,
    guided,
    merge_guidance,
    resolve_guidance,
)
from alphabar.guidance.base import Guidance, evaluations_at
from alphabar.guidance.self_attention import blurred
from alphabar.networks.layers import SelfAttention
from exact import MixtureDenoiser

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.5], [1.0, 1.5], [0.5, -1.0]], dtype=torch.float64)
CLASS_OF = torch.tensor([0, 1, 1])  # of each component
STD = 0.4


class Classes:
    """The exact denoiser of the mixture, by class where cond (n, 1) is one, of all where it is NaN.

    sizes: the number of samples in each of its evaluations.
    """

    def __init__(self, schedule):
        self.schedule = schedule
        self.sizes: list[int] = []
        self.of = [
            MixtureDenoiser(schedule, WEIGHTS[mine] / WEIGHTS[mine].sum(), MEANS[mine], STD)
            for mine in (CLASS_OF == 0, CLASS_OF == 1, CLASS_OF >= 0)
        ]

    def __call__(self, x, t, cond=None):
        self.sizes.append(len(x))
        which = torch.full((len(x),), 2) if cond is None else cond[:, 0].nan_to_num(2).long()
        return torch.cat([self.of[int(w)](x[i : i + 1], t[i : i + 1]) for i, w in enumerate(which)])


@pytest.fixture(params=["cosine", "variance_exploding", "rectified_flow"])
def classes(request):
    return Classes(SCHEDULES.build(request.param))


@dataclass(frozen=True)
class Model:
    """What a guidance may use of a model."""

    denoiser: Any = None
    attention: Any = None
    early: Any = None
    vocabulary: Vocabulary | None = None
    path: Path = Path("model")


LABELS = Vocabulary((Categorical("class", ("first", "second")),))


def bound(guidance: Guidance, conditioned: bool = True, **model: Any) -> Guidance:
    """The guidance, bound to a model of which these means are given."""
    return guidance.bind(Model(**model), conditioned=conditioned)


def classifier_free(scale: float, **settings: Any) -> Guidance:
    return bound(ClassifierFree(scale=scale, **settings), vocabulary=LABELS)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, 0.8, 6, dtype=torch.float64)
    return x, t, torch.tensor([0.0, 1, 1, 0, 1, 0], dtype=torch.float64)[:, None]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def log_density(schedule, x: Tensor, t: Tensor, mine: Tensor) -> Tensor:
    """log p(x_t, class), of the components that ``mine`` (n, k) marks."""
    alpha, sigma = (c[:, None] for c in schedule(t))
    variance = alpha**2 * STD**2 + sigma**2
    gap = x[:, None] - alpha[..., None] * MEANS
    each = WEIGHTS.log() - (gap**2).sum(2) / (2 * variance) - variance.log()
    return each.masked_fill(~mine, -math.inf).logsumexp(1)


@pytest.mark.parametrize("scale", [1.0, 0.0, 2.5])
def test_classifier_free_guidance_extrapolates_from_the_unconditional_answer(classes, inputs, scale):
    x, t, cond = inputs
    conditional, unconditional = classes(x, t, cond), classes(x, t)
    classes.sizes.clear()
    answer = guided(classes, [classifier_free(scale)])(x, t, cond)
    close(answer, unconditional + scale * (conditional - unconditional))
    assert classes.sizes == [6 if scale == 1 else 12]  # one batch


def test_classifier_free_guidance_adds_nothing_to_an_unknown_condition(classes, inputs):
    x, t, cond = inputs
    close(guided(classes, [classifier_free(3.0)])(x, t, torch.full_like(cond, math.nan)), classes(x, t))
    classes.sizes.clear()
    close(guided(classes, [classifier_free(3.0)])(x, t, None), classes(x, t))
    assert classes.sizes == [6, 6]


def test_a_negative_condition_takes_the_place_of_no_condition(classes, inputs):
    x, t, cond = inputs
    answer = guided(classes, [classifier_free(3.0, negative="second")])(x, t, cond)
    away = classes(x, t, torch.ones_like(cond))
    close(answer, away + 3.0 * (classes(x, t, cond) - away))


def test_classifier_guidance_is_bayes_rule(classes, inputs):
    x, t, cond = inputs
    mine = cond.long() == CLASS_OF

    def log_probability(x, t, cond):
        return log_density(classes.schedule, x, t, mine) - log_density(classes.schedule, x, t, mine | True)

    def classifier(scale):
        guidance = ClassifierGuidance(scale=scale)
        guidance.log_probability = log_probability
        return guidance

    unconditional = without_condition(classes)
    close(guided(unconditional, [classifier(1.0)])(x, t, cond), classes(x, t, cond))
    with torch.no_grad():  # as samplers run
        stronger = guided(unconditional, [classifier(3.0)])(x, t, cond)
    free = guided(classes, [classifier_free(3.0)])(x, t, cond)
    close(stronger, free)


def test_autoguidance_extrapolates_from_the_early_model(classes, inputs):
    x, t, cond = inputs
    bad = MixtureDenoiser(classes.schedule, WEIGHTS, MEANS, 2 * STD)
    answer = guided(classes, [bound(Autoguidance(scale=1.7), early=bad)])(x, t, cond)
    close(answer, bad(x, t) + 1.7 * (classes(x, t, cond) - bad(x, t)))


def test_outside_the_interval_only_the_denoiser_itself_is_evaluated(classes, inputs):
    x, t, cond = inputs
    level = classes.schedule(t)
    ratio = level.sigma / level.alpha
    lo, hi = ratio[1].item(), ratio[3].item()
    both = guided(classes, [classifier_free(2.0)], interval=(lo, hi))
    expected = classes(x, t, cond)
    inside = torch.tensor([False, False, True, True, False, False])  # lo itself is outside, hi inside
    expected[inside] = guided(classes, [classifier_free(2.0)])(x, t, cond)[inside]
    classes.sizes.clear()
    close(both(x, t, cond), expected)
    assert classes.sizes == [4, 4]  # two samples twice, four once
    classes.sizes.clear()
    both(x[:2], t[:2], cond[:2])
    assert classes.sizes == [2]


def attending_denoiser(schedule, attention: SelfAttention):
    """A denoiser of signals (n, 4, 4, 4) that is one self-attention layer, and the sizes of its batches."""
    sizes: list[int] = []

    def answer(x, t, cond):
        sizes.append(len(x))
        return attention(x) * (1 if cond is None else 1 + cond.nan_to_num(0.0)[:, :, None, None])

    return FunctionDenoiser(schedule, answer), sizes


@pytest.fixture
def attention():
    layer = SelfAttention(4, 2).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


@pytest.fixture
def signals():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 4, 4, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)


def pag(scale: float, attention: Any, **settings: Any) -> Guidance:
    return bound(PerturbedAttention(scale=scale, **settings), attention=attention)


def identity_by_hand(layer: SelfAttention, x: Tensor) -> Tensor:
    """Attention whose matrix is the identity: every position keeps its own value."""
    return x + layer.out(layer.qkv(layer.norm(x)).chunk(3, 1)[2])


def test_perturbed_attention_guidance_leads_away_from_identity_attention(attention, signals):
    x, t = signals
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    answer = guided(denoiser, [pag(3.0, attention)])(x, t)
    assert sizes == [6]
    close(answer, attention(x) + 3.0 * (attention(x) - identity_by_hand(attention, x)))


def test_a_guidance_may_have_an_interval_of_its_own(attention, signals):
    x, t = signals
    cond = torch.ones(3, 1, dtype=torch.float64)
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    level = denoiser.schedule(t)
    ratios = (level.sigma / level.alpha).tolist()
    free, own = classifier_free(2.5), pag(3.0, attention, interval=(ratios[0], ratios[1]))
    answer = guided(denoiser, [free, own])(x, t, cond)
    assert sorted(sizes) == [3, 4]  # one sample three times, two twice
    for i, terms in enumerate(([free], [free, pag(3.0, attention)], [free])):
        close(answer[i], guided(denoiser, terms)(x, t, cond)[i])
    within = guided(denoiser, [free, own], interval=(0, ratios[0]))(x, t, cond)
    close(within[0], answer[0])
    close(within[1:], denoiser(x, t, cond)[1:])


def test_guidances_share_one_batch_and_add_up_in_any_order(attention, signals):
    x, t = signals
    cond = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    terms = [classifier_free(2.5), pag(3.0, attention)]
    answer = guided(denoiser, terms)(x, t, cond)
    assert sizes == [9]
    close(answer, guided(denoiser, terms[::-1])(x, t, cond))
    D, D_u = denoiser(x, t, cond), denoiser(x, t)
    D_id = identity_by_hand(attention, x) * (1 + cond[:, :, None, None])
    close(answer, D + 1.5 * (D - D_u) + 3.0 * (D - D_id))


def test_recorded_attention_is_what_each_position_receives(attention, signals):
    x, _ = signals
    with attention.record_attention() as maps:
        y = attention(x)
    assert len(maps) == 1 and torch.equal(attention(x), y) and len(maps) == 1
    q, k = (part.reshape(3, 2, 2, 16) for part in attention.qkv(attention.norm(x)).chunk(3, 1)[:2])
    shares = (torch.einsum("nhci,nhcj->nhij", q, k) / math.sqrt(2)).softmax(-1)
    close(maps[0], shares.sum(2).mean(1).reshape(3, 4, 4))
    close(maps[0].mean((1, 2)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("schedule", ["cosine", "variance_exploding"])
def test_self_attention_guidance_blurs_where_a_planted_map_attends(schedule, signals):
    x, t = signals
    schedule = SCHEDULES.build(schedule)
    received = torch.tensor([[1.5, 0.5], [0.9, 1.1]], dtype=torch.float64).expand(3, 2, 2)

    @contextmanager
    def record_attention():
        yield [received]

    def sag(blur):
        planted = SimpleNamespace(record_attention=record_attention)
        return bound(SelfAttentionGuidance(scale=0.6, blur=blur), attention=planted)

    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: (0.7 * x).tanh())
    answer = guided(denoiser, [sag(blur=1.0)])(x, t)
    alpha, sigma = (c[:, None, None, None] for c in schedule(t))
    D = denoiser(x, t)
    eps = (x - alpha * D) / sigma
    Dhat = D.clone()
    for rows, columns in ((slice(0, 2), slice(0, 2)), (slice(2, 4), slice(2, 4))):
        Dhat[:, :, rows, columns] = blurred(D, 1.0)[:, :, rows, columns]
    close(answer, D + 0.6 * (Dhat - denoiser(alpha * Dhat + sigma * eps, t)))
    close(guided(denoiser, [sag(blur=0.0)])(x, t), D)


def test_blurring_is_gaussian_and_keeps_constants():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 24, 24, generator=generator, dtype=torch.float64)
    flat = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    close(blurred(flat, 2.0), flat)
    close(blurred(x.mT, 1.0), blurred(x, 1.0).mT)
    spike = torch.zeros(1, 1, 25, 25, dtype=torch.float64)
    spike[0, 0, 12, 12] = 1
    at = torch.arange(25, dtype=torch.float64) - 12
    assert (blurred(spike, 1.5)[0, 0].sum(0) * at**2).sum().item() == pytest.approx(1.5**2, rel=0.03)


# --- what every guidance in the registry keeps ---


class Network:
    """A one-layer attention denoiser with an early snapshot and a condition, which counts its samples."""

    def __init__(self, attention: SelfAttention):
        self.attention, self.samples = attention, 0
        self.schedule = SCHEDULES.build("cosine")

        def answer(x, t, cond):
            self.samples += len(x)
            return attention(x) * (1 if cond is None else 1 + cond.nan_to_num(0.5)[:, :, None, None])

        def early(x, t, cond):
            self.samples += len(x)
            return 0.5 * x

        self.model = Model(
            denoiser=FunctionDenoiser(self.schedule, answer),
            attention=attention,
            early=FunctionDenoiser(self.schedule, early),
            vocabulary=LABELS,
        )

    def load(self, path: str):
        """A "classifier" that finds dark samples likely, in place of one on the disk."""
        network = SimpleNamespace(log_prob=lambda x, c_noise, cond: -x.flatten(1).sum(1))
        assert path == "classifier"
        return SimpleNamespace(method=SimpleNamespace(classifies=True), vocabulary=LABELS, denoiser=network)


SETTINGS = {"classifier": {"model": "classifier"}}
"""What a guidance of this name needs beside its scale."""


@pytest.fixture
def network(attention, monkeypatch):
    monkeypatch.setattr(
        "alphabar.guidance.classifier.on_schedule",
        lambda classifier, schedule: lambda x, t, cond: classifier.log_prob(x, t, cond),
    )
    return Network(attention)


def strong(name: str, **settings: Any) -> dict[str, Any]:
    """A spec of the guidance at a scale that changes something."""
    scale = guidance_class(name).neutral + 1.5
    return {"name": name, "scale": scale, **SETTINGS.get(name, {}), **settings}


def guided_by(network: Network, *specs: dict[str, Any], interval=None):
    model = network.model
    guidances = [g.bind(model, conditioned=True, load_model=network.load) for g in build_guidances(specs)]
    return guided(model.denoiser, guidances, interval=interval)


every_guidance = pytest.mark.parametrize("name", GUIDANCES)


@every_guidance
def test_a_guidance_says_what_it_is(name):
    kind = guidance_class(name)
    assert kind.option and kind.help.endswith(".") and kind.neutral in (0.0, 1.0)
    low, high = kind.scale_range
    assert low <= kind.neutral < high and kind.extra_evaluations >= 0
    settings = set(GUIDANCES.settings(name))
    assert settings >= {"scale", "interval"} and settings >= set(kind.setting_options)


@every_guidance
def test_a_neutral_scale_changes_nothing_and_costs_nothing(name, network, signals):
    x, t = signals
    cond = torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    neutral = strong(name, scale=guidance_class(name).neutral)
    expected = network.model.denoiser(x, t, cond)
    network.samples = 0
    assert torch.equal(guided_by(network, neutral)(x, t, cond), expected)
    assert network.samples == len(x)
    assert not torch.equal(guided_by(network, strong(name))(x, t, cond), expected)


@every_guidance
@pytest.mark.parametrize("own", [True, False])
def test_a_guidance_acts_only_within_its_interval(name, own, network, signals):
    x, t = signals
    cond = torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    level = network.schedule(t)
    ratio = (level.sigma / level.alpha)[1].item()
    only_second = (0.999 * ratio, ratio)
    if own:
        answer = guided_by(network, strong(name, interval=only_second))(x, t, cond)
    else:
        answer = guided_by(network, strong(name), interval=only_second)(x, t, cond)
    plain, everywhere = network.model.denoiser(x, t, cond), guided_by(network, strong(name))(x, t, cond)
    close(answer[::2], plain[::2])
    close(answer[1], everywhere[1])
    assert (answer[1] - plain[1]).abs().max() > 1e-6


@every_guidance
@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("interval", [None, (0.3, 3.0)])
def test_the_counted_evaluations_are_those_that_are_made(name, sampler, interval, network, signals):
    x, _ = signals
    cond = torch.ones(3, 1, dtype=torch.float64)
    times = TIMESTEPS.build("karras")(network.schedule, 6)
    run = SAMPLERS.build(sampler)
    last_step(
        run(guided_by(network, strong(name), interval=interval), x, times, Noise(0, range(3), ""), cond)
    )
    guidances = build_guidances([strong(name)])
    counted = count_nfe(run, network.schedule, times, lambda r: evaluations_at(r, guidances, interval))
    assert network.samples == 3 * counted


@every_guidance
def test_without_its_means_a_guidance_is_refused(name):
    kind, bare = guidance_class(name), Model()
    (guidance,) = build_guidances([{"name": name, "scale": kind.neutral + 1.5}])
    with pytest.raises(UsageError) as raised:
        guidance.bind(bare, conditioned=False)
    assert "guía" in raised.value.in_language("es") or "--" in raised.value.in_language("es")
    assert kind.available(bare) == (name == "classifier")


def test_a_condition_must_be_there_to_be_strengthened():
    for means in ({"vocabulary": LABELS, "conditioned": False}, {"conditioned": True}):
        with pytest.raises(UsageError, match="strengthens a condition"):
            bound(ClassifierFree(scale=2.0), **means)
    with pytest.raises(UsageError, match="--guidance above 1"):
        bound(ClassifierFree(negative="first"), vocabulary=LABELS)


def test_a_guidance_classifier_must_be_one_of_the_same_labels(network):
    guidance = ClassifierGuidance(model="classifier")
    other = Vocabulary((Categorical("class", ("other", "second")),))
    with pytest.raises(UsageError, match="other labels"):
        guidance.bind(Model(vocabulary=other), conditioned=True, load_model=network.load)
    recipe = SimpleNamespace(method={"name": "diffusion"})
    sampler = SimpleNamespace(method=SimpleNamespace(classifies=False), recipe=recipe)
    with pytest.raises(UsageError, match="'diffusion'"):
        guidance.bind(Model(), conditioned=True, load_model=lambda path: sampler)
    with pytest.raises(UsageError, match="--class"):
        guidance.bind(Model(), conditioned=False, load_model=network.load)


@every_guidance
def test_specs_survive_json(name):
    specs = resolve_guidance([strong(name, interval=(0.5, 2.0))])
    assert resolve_guidance(json.loads(json.dumps(specs))) == specs


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["pga"], "did you mean 'pag'"),
        ([{"name": "pag", "scael": 1}], "did you mean 'scale'"),
        ([{"name": "pag", "scale": "strong"}], "number"),
        ([{"name": "pag", "scale": math.inf}], "finite"),
        ([{"name": "pag", "interval": [2.0, 1.0]}], "contains no noise level"),
        (["pag", {"name": "pag", "scale": 2}], "given twice"),
        ("pag", "must be a list"),
    ],
)
def test_impossible_specs_are_refused(specs, message):
    with pytest.raises(UsageError, match=message):
        resolve_guidance(specs)


def test_merging_keeps_what_is_not_named():
    own = resolve_guidance([{"name": "pag", "scale": 4.0, "interval": (0.2, 2.5)}])
    assert merge_guidance(own, {}) == tuple(own)
    assert merge_guidance(own, {"pag": 2}) == ({**own[0], "scale": 2.0},)
    assert merge_guidance(own, {"pag": 0}) == ()
    both = merge_guidance(own, {"sag": 1.0, "classifier_free": {"scale": 2.0, "negative": "van"}})
    assert [spec["name"] for spec in both] == ["classifier_free", "pag", "sag"]
    assert both[0]["negative"] == "van" and both[1] == own[0]
    # A scale that is neutral for now keeps the settings beside it.
    (waiting,) = merge_guidance((), {"classifier_free": {"scale": 1.0, "negative": "van"}})
    assert waiting["negative"] == "van" and merge_guidance((), {"classifier_free": 1.0}) == ()
