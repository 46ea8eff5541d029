"""Muon: steps that are orthogonal, of Adam's size, and that go on where they stopped."""

import copy

import pytest
import torch
from torch import nn

from alphabar.tensor_files import pack_optimizer, unpack_optimizer
from alphabar.training.muon import CudaGraph, Muon, orthogonal, orthogonalized_updates


@pytest.mark.parametrize("shape", [(32, 32), (16, 300), (300, 16)])
def test_the_orthogonal_factor(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    o, _ = orthogonal(torch.stack([matrix, torch.randn(shape)]))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ o @ v.T  # diagonal where the singular vectors are those of the matrix
    values = inside.diagonal()
    assert torch.allclose(inside, torch.diag(values), atol=1e-4)
    # Square Gaussian matrices have singular values next to zero, which five rounds do not lift.
    large = torch.linalg.svdvals(matrix) > 0.02 * torch.linalg.norm(matrix)
    assert values[large].min() > 0.65 and values[large].max() < 1.25


@pytest.mark.parametrize("shape", [(24, 24), (16, 144), (144, 16)])
def test_iterating_on_gram_matrices_is_newton_and_schulz(shape):
    torch.manual_seed(0)
    x = torch.randn(2, *shape, dtype=torch.float64)
    found = orthogonal(x)
    x = x / x.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    assert torch.allclose(found, x, atol=1e-5)  # apart from what keeps a zero matrix from a division by zero


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e10])
def test_matrices_of_any_spectrum_stay_bounded(scale):
    torch.manual_seed(0)
    falling = torch.randn(64, 300) * torch.logspace(0, -12, 64)[:, None]
    rank_one = torch.outer(torch.randn(64), torch.randn(300))
    large = torch.linalg.matrix_norm(orthogonal(scale * torch.stack([falling, rank_one])), ord=2)
    assert (large < 1.25).all() and (large > 0.65).all()


def test_a_memory_format_changes_no_step():
    torch.manual_seed(0)
    weight, grad = torch.randn(2, 48, 16, 3, 3)
    steps = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        p = nn.Parameter(weight.clone(memory_format=memory_format))
        p.grad = grad.clone(memory_format=memory_format)
        Muon([p], lr=0.1, betas=(0.9, 0.99)).step()
        assert p.is_contiguous(memory_format=memory_format)
        steps.append(p.detach() - weight)
    assert torch.allclose(*steps, atol=1e-6) and steps[0].abs().max() > 1e-3


def test_a_zero_gradient_moves_nothing():
    p = nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    Muon([p], lr=1.0, betas=(0.9, 0.99)).step()
    assert torch.equal(p, torch.ones(4, 4))


def test_a_step_has_the_size_of_adams():
    torch.manual_seed(0)
    for shape in ((64, 32, 3, 3), (48, 200), (200, 48)):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape)
        Muon([p], lr=0.1, betas=(0.9, 0.99)).step()
        assert p.pow(2).mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.2)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (4, 3, 3, 3)])
def test_several_steps_are_those_of_the_papers_equations(shape):
    """Momentum m, Nesterov's look ahead, and the odd polynomial of the singular values of their mix."""
    gradients = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    p, rate, mu = nn.Parameter(torch.zeros(shape)), 0.1, 0.9
    optimizer = Muon([p], lr=rate, betas=(0.9, 0.99), momentum=mu)
    m = wanted = torch.zeros(shape[0], p[0].numel(), dtype=torch.float64)
    for gradient in gradients:
        p.grad = gradient
        optimizer.step()
        g = gradient.double().flatten(1)
        m = mu * m + (1 - mu) * g
        u, s, v = torch.linalg.svd(mu * m + (1 - mu) * g, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        wanted = wanted - 0.2 * rate * max(m.shape) ** 0.5 * u @ s.diag() @ v
    assert torch.allclose(p.flatten(1).double(), wanted, atol=1e-5)


def test_vectors_move_as_adam_moves_them():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    a, b = Muon([ours], lr=0.01, betas=(0.9, 0.99)), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_weights_decay_apart_from_the_gradient():
    p = nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    Muon([p], lr=0.5, betas=(0.9, 0.99), weight_decay=0.1).step()
    assert torch.allclose(p, torch.full((4, 4), 0.95))


def test_the_state_goes_on_bit_for_bit():
    def steps(net, optimizer, n):
        torch.manual_seed(7)
        for _ in range(n):
            optimizer.zero_grad()
            net(torch.randn(5, 3, 8, 8)).pow(2).mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 3))
    first = Muon(net.parameters(), lr=0.1, betas=(0.9, 0.99))
    steps(net, first, 3)
    other = copy.deepcopy(net)
    second = Muon(other.parameters(), lr=0.1, betas=(0.9, 0.99))
    unpack_optimizer(pack_optimizer(first), second)
    steps(net, first, 2)
    steps(other, second, 2)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels are recorded on a GPU: none here")
def test_recorded_steps_are_those_of_the_processor():
    def matrices(seed):
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(s, generator=generator) for s in ((64, 32, 3, 3), (48, 200), (48, 200), (200, 48))
        ]

    recorded = CudaGraph(orthogonalized_updates, [m.cuda() for m in matrices(0)])
    for seed in (1, 2):
        for ours, theirs in zip(
            recorded([m.cuda() for m in matrices(seed)]), orthogonalized_updates(matrices(seed)), strict=True
        ):
            assert (ours.cpu() - theirs).norm() < 0.02 * theirs.norm()
