"""Muon (Jordan et al. 2024): the momentum of a matrix is made orthogonal before it becomes an update."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

# Newton and Schulz's iteration with the coefficients of Jordan et al., fast rather than exact: five rounds
# bring singular values from 0.01 .. 1 to about 0.7 .. 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """U Vᵀ, nearly, of matrices U S Vᵀ of shape (k, m, n).

    A round multiplies X by the polynomial P = A + B·G + C·G² of its Gram matrix G = X Xᵀ. The Gram matrix of
    the product is P·G·P, so all rounds together are one product of small matrices, applied to X at the end.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    gram = x @ x.mT
    scale = 1 / (gram.diagonal(dim1=1, dim2=2).sum(1).sqrt() + 1e-7)[:, None, None]
    gram = scale**2 * gram  # of X with the norm 1
    polynomial = product = _polynomial(gram)
    for _ in range(ROUNDS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        product = polynomial @ product
    x = scale * product @ x
    return x.mT if tall else x


def _polynomial(gram: Tensor) -> Tensor:
    p = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
    p.diagonal(dim1=1, dim2=2).add_(A)
    return p


def orthogonalized_updates(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Each matrix (m, ...) made orthogonal and as large as Adam's steps: sqrt(max(m, n)) U Vᵀ."""
    found: list[Tensor] = list(matrices)
    alike: dict[tuple[int, ...], list[int]] = {}
    # In the order of the memory: the order of columns means nothing, and changing it would be a copy.
    stored = [m if m.is_contiguous() else m.movedim(1, -1) for m in matrices]
    for i, matrix in enumerate(stored):
        alike.setdefault((len(matrix), matrix[0].numel()), []).append(i)
    for shape, places in alike.items():  # one product for all of a shape
        o = max(shape) ** 0.5 * orthogonal(torch.stack([stored[i].flatten(1) for i in places]))
        for i, updated in zip(places, o, strict=True):
            updated = updated.view_as(stored[i])
            found[i] = updated if matrices[i].is_contiguous() else updated.movedim(-1, 1)
    return found


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
        self._graphs: dict[tuple[int, ...], CudaGraph] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            matrices = [p for p in params if p.ndim >= 2]
            vectors = [p for p in params if p.ndim < 2]
            if params and group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            if matrices:
                self._step_matrices(matrices, group["lr"], group["momentum"])
            if vectors:
                self._step_vectors(vectors, group["lr"], *group["betas"])

    def _step_matrices(self, params: list[Tensor], lr: float, momentum: float) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        m = [self.state[p]["momentum"] for p in params]
        g = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(m, g, 1 - momentum)
        ahead = torch._foreach_lerp(g, m, momentum)
        if params[0].is_cuda:
            which = tuple(map(id, params))
            if which not in self._graphs:
                self._graphs[which] = CudaGraph(orthogonalized_updates, ahead)
            steps = self._graphs[which](ahead)
        else:
            steps = orthogonalized_updates(ahead)
        torch._foreach_sub_(params, steps, alpha=0.2 * lr)

    def _step_vectors(self, params: list[Tensor], lr: float, beta1: float, beta2: float) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(
                    step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p)
                )
        steps, means, squares = ([self.state[p][key] for p in params] for key in ("step", "mean", "square"))
        g = [p.grad for p in params if p.grad is not None]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, g, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(g, g), 1 - beta2)
        times = [step.item() for step in steps]
        roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - beta2**k for k in times]))
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_addcdiv_(params, means, roots, [-lr / (1 - beta1**k) for k in times])


class CudaGraph:
    """A function of tensors on a GPU whose kernels are recorded once and started together ever after.

    A GPU has finished hundreds of small products before a processor has started them one by one.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], list[Tensor]], inputs: Sequence[Tensor]):
        self.inputs = [x.clone() for x in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(self.inputs)  # sets up what must not be set up while recording
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others bring pictures to the GPU meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = function(self.inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The function of inputs of the first ones' shapes; good until the next call."""
        torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        return self.outputs
