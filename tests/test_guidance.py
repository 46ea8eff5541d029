"""Guidance against closed forms: mixtures of Gaussians whose classes, posteriors and scores are known."""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.guidance import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from alphabar.guidance.self_attention import blurred
from alphabar.networks.layers import SelfAttention
from exact import MixtureDenoiser

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.5], [1.0, 1.5], [0.5, -1.0]], dtype=torch.float64)
CLASS_OF = torch.tensor([0, 1, 1])  # of each component
STD = 0.4


class Classes:
    """The exact denoiser of the mixture, by class where cond (n, 1) is one, of all where it is NaN.

    Counts the questions and the pictures in them.
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


@pytest.fixture
def question():
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
def test_classifier_free(classes, question, scale):
    x, t, cond = question
    conditional, unconditional = classes(x, t, cond), classes(x, t)
    classes.sizes.clear()
    answer = guided(classes, [ClassifierFree(scale)])(x, t, cond)
    close(answer, unconditional + scale * (conditional - unconditional))
    assert classes.sizes == [12]


def test_classifier_free_adds_nothing_where_nothing_is_asked(classes, question):
    x, t, cond = question
    close(guided(classes, [ClassifierFree(3.0)])(x, t, torch.full_like(cond, math.nan)), classes(x, t))
    classes.sizes.clear()
    guided(classes, [ClassifierFree(3.0)])(x, t, None)
    assert classes.sizes == [6]


def test_classifier_guidance_is_bayes_rule(classes, question):
    x, t, cond = question
    mine = cond.long() == CLASS_OF

    def log_prob(x, t, cond):
        return log_density(classes.schedule, x, t, mine) - log_density(classes.schedule, x, t, mine | True)

    unconditional = FunctionDenoiser(classes.schedule, lambda x, t, cond: classes(x, t))
    close(guided(unconditional, [ClassifierGuidance(log_prob, 1.0)])(x, t, cond), classes(x, t, cond))
    with torch.no_grad():  # as samplers run
        stronger = guided(unconditional, [ClassifierGuidance(log_prob, 3.0)])(x, t, cond)
    free = guided(classes, [ClassifierFree(3.0)])(x, t, cond)
    close(stronger, free)


def test_autoguidance(classes, question):
    x, t, cond = question
    bad = MixtureDenoiser(classes.schedule, WEIGHTS, MEANS, 2 * STD)
    answer = guided(classes, [Autoguidance(bad, 1.7)])(x, t, cond)
    close(answer, bad(x, t) + 1.7 * (classes(x, t, cond) - bad(x, t)))


def test_nothing_is_asked_that_the_interval_does_not_need(classes, question):
    x, t, cond = question
    level = classes.schedule(t)
    ratio = level.sigma / level.alpha
    lo, hi = ratio[1].item(), ratio[3].item()
    both = guided(classes, [ClassifierFree(2.0)], interval=(lo, hi))
    expected = classes(x, t, cond)
    inside = torch.tensor([False, False, True, True, False, False])  # lo itself is outside, hi inside
    expected[inside] = guided(classes, [ClassifierFree(2.0)])(x, t, cond)[inside]
    classes.sizes.clear()
    close(both(x, t, cond), expected)
    assert classes.sizes == [4, 4]  # two pictures twice, four once
    classes.sizes.clear()
    both(x[:2], t[:2], cond[:2])
    assert classes.sizes == [2]


def attending_denoiser(schedule, attention: SelfAttention):
    """A denoiser of signals (n, 4, 4, 4) that is one self-attention layer, and counts its questions."""
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


def alone_by_hand(layer: SelfAttention, x: Tensor) -> Tensor:
    """Attention whose matrix is the identity: every position keeps its own value."""
    return x + layer.out(layer.qkv(layer.norm(x)).chunk(3, 1)[2])


def test_perturbed_attention(attention, signals):
    x, t = signals
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    answer = guided(denoiser, [PerturbedAttention(attention.each_alone, 3.0)])(x, t)
    assert sizes == [6]
    close(answer, attention(x) + 3.0 * (attention(x) - alone_by_hand(attention, x)))


def test_perturbed_attention_may_have_noise_levels_of_its_own(attention, signals):
    x, t = signals
    cond = torch.ones(3, 1, dtype=torch.float64)
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    level = denoiser.schedule(t)
    ratios = (level.sigma / level.alpha).tolist()
    free, pag = ClassifierFree(2.5), PerturbedAttention(attention.each_alone, 3.0, (ratios[0], ratios[1]))
    answer = guided(denoiser, [free, pag])(x, t, cond)
    assert sorted(sizes) == [3, 4]  # one picture three times, two twice
    for i, terms in enumerate(([free], [free, pag], [free])):
        whole = [replace(g, interval=EVERYWHERE) if g is pag else g for g in terms]
        close(answer[i], guided(denoiser, whole)(x, t, cond)[i])
    within = guided(denoiser, [free, pag], interval=(0, ratios[0]))(x, t, cond)
    close(within[0], answer[0])
    close(within[1:], denoiser(x, t, cond)[1:])


def test_guidances_share_one_batch_and_add_up_in_any_order(attention, signals):
    x, t = signals
    cond = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    denoiser, sizes = attending_denoiser(SCHEDULES.build("cosine"), attention)
    terms = [ClassifierFree(2.5), PerturbedAttention(attention.each_alone, 3.0)]
    answer = guided(denoiser, terms)(x, t, cond)
    assert sizes == [9]
    close(answer, guided(denoiser, terms[::-1])(x, t, cond))
    D, D_u = denoiser(x, t, cond), denoiser(x, t)
    D_id = alone_by_hand(attention, x) * (1 + cond[:, :, None, None])
    close(answer, D + 1.5 * (D - D_u) + 3.0 * (D - D_id))


def test_recorded_attention(attention, signals):
    x, _ = signals
    with attention.recorded() as maps:
        y = attention(x)
    assert len(maps) == 1 and torch.equal(attention(x), y) and len(maps) == 1
    q, k = (part.reshape(3, 2, 2, 16) for part in attention.qkv(attention.norm(x)).chunk(3, 1)[:2])
    shares = (torch.einsum("nhci,nhcj->nhij", q, k) / math.sqrt(2)).softmax(-1)
    close(maps[0], shares.sum(2).mean(1).reshape(3, 4, 4))
    close(maps[0].mean((1, 2)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("schedule", ["cosine", "variance_exploding"])
def test_self_attention_guidance_with_a_planted_map(schedule, signals):
    x, t = signals
    schedule = SCHEDULES.build(schedule)
    received = torch.tensor([[1.5, 0.5], [0.9, 1.1]], dtype=torch.float64).expand(3, 2, 2)

    @contextmanager
    def recorded():
        yield [received]

    denoiser = FunctionDenoiser(schedule, lambda x, t, cond: (0.7 * x).tanh())
    answer = guided(denoiser, [SelfAttentionGuidance(recorded, 0.6, blur=1.0)])(x, t)
    alpha, sigma = (c[:, None, None, None] for c in schedule(t))
    D = denoiser(x, t)
    eps = (x - alpha * D) / sigma
    Dhat = D.clone()
    for rows, columns in ((slice(0, 2), slice(0, 2)), (slice(2, 4), slice(2, 4))):
        Dhat[:, :, rows, columns] = blurred(D, 1.0)[:, :, rows, columns]
    close(answer, D + 0.6 * (Dhat - denoiser(alpha * Dhat + sigma * eps, t)))
    close(guided(denoiser, [SelfAttentionGuidance(recorded, 0.6, blur=0.0)])(x, t), D)


def test_blur():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 24, 24, generator=generator, dtype=torch.float64)
    flat = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    close(blurred(flat, 2.0), flat)
    close(blurred(x.mT, 1.0), blurred(x, 1.0).mT)
    spike = torch.zeros(1, 1, 25, 25, dtype=torch.float64)
    spike[0, 0, 12, 12] = 1
    at = torch.arange(25, dtype=torch.float64) - 12
    assert (blurred(spike, 1.5)[0, 0].sum(0) * at**2).sum().item() == pytest.approx(1.5**2, rel=0.03)
