"""Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before it is a step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Newton and Schulz's iteration with the coefficients of Jordan et al., fast rather than exact: five rounds
# bring singular values from 0.01 .. 1 to about 0.7 .. 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """U Vᵀ, nearly, of a matrix U S Vᵀ of shape (m, n)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x if wide is matrix else x.T


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions (as out × in·k·k matrices), Adam for vectors and numbers.

    lr means what it does for Adam: a step on a matrix has the root mean square 0.2·lr that Adam's have
    (Liu et al. 2025, eq. 4). weight_decay is decoupled, as AdamW's. torch.optim.Muon takes no convolutions,
    and computes in bfloat16 everywhere.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                if p.ndim >= 2:
                    self._turn(p, p.grad, group["lr"], group["momentum"])
                else:
                    self._adam(p, p.grad, group["lr"], *group["betas"])

    def _turn(self, p: Tensor, g: Tensor, lr: float, momentum: float) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        m = state["momentum"].lerp_(g, 1 - momentum)
        o = orthogonal(g.lerp(m, momentum).flatten(1))
        p.sub_(o.view_as(p), alpha=lr * 0.2 * max(o.shape) ** 0.5)

    def _adam(self, p: Tensor, g: Tensor, lr: float, beta1: float, beta2: float) -> None:
        state = self.state[p]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        mean = state["mean"].lerp_(g, 1 - beta1) / (1 - beta1 ** state["step"])
        square = state["square"].lerp_(g * g, 1 - beta2) / (1 - beta2 ** state["step"])
        p.sub_(lr * mean / (square.sqrt() + 1e-8))
