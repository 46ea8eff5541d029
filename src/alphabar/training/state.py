"""The state of a training, the update that moves it, and the bytes of its checkpoints."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.random import Purpose, stream_seed
from alphabar.errors import AlphabarError
from alphabar.files import pack_json
from alphabar.methods.registry import METHODS, method_of
from alphabar.networks.base import Network
from alphabar.networks.resample import recompute_blocks
from alphabar.recipes.schema import Recipe
from alphabar.runs.ema import EMA, SIGMA_RELS, PowerFunctionEMA
from alphabar.runs.model import build_denoiser, load_weights
from alphabar.runtime import Runtime, accumulating
from alphabar.tensor_files import pack_optimizer, pack_tensors, tensors_in, unpack_optimizer
from alphabar.training.batches import Batch, BatchLoader, TrainingBatches
from alphabar.training.changes import check_shares
from alphabar.training.labels import Conditions
from alphabar.training.optimizers import make_optimizer
from alphabar.training.signals import Signals
from alphabar.training.unmoved import UnmovedParameters

# In fp16 gradients below 6e-8 are zero and those above 65,504 infinite. So the loss is scaled for the
# backward pass: by half as much after an infinite gradient, by twice as much after so many updates
# (Micikevicius et al. 2018, 3.2).
LOSS_SCALE, UPDATES_TO_DOUBLE = 2.0**16, 2_000


class TrainingState:
    """Weights, optimizer, averages and counters of a training.

    conditions: of all items of the data set, or None for an unconditional recipe. signals: of the items; by
    default encoded when they are needed.

    images: seen since the beginning of the run; with the recipe they decide everything random. seconds:
    spent.
    bad_steps: updates in a row that were left out because loss or gradient, of the network or of one that is
    trained beside it, were not finite.
    whole: whether the weights are those after a finished update, and not of one that failed half-way.
    unmoved: the parameters that the last update found to have had no gradient for long; told once.
    Raises UsageError or AlphabarError where batch, processes and data do not fit one another.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        runtime: Runtime,
        conditions: Conditions | None,
        signals: Signals | None = None,
    ):
        self.recipe, self.runtime, self.conditions = recipe, runtime, conditions
        check_shares(recipe, runtime)
        self.train_index, _ = dataset.split(recipe.data.held_out)
        if len(self.train_index) == 0:
            raise AlphabarError("training.no_items", n=len(dataset.items), held_out=recipe.data.held_out)
        self.fingerprint = _fingerprint(dataset, conditions)
        denoiser = build_denoiser(recipe, conditions.vocabulary if conditions else None)
        self.network = denoiser.network
        if recipe.recompute:
            recompute_blocks(self.network)
        runtime.place(self.network)
        # Looked up once: a GPU would wait for it at every update.
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.buffers = list(self.network.buffers())
        self.denoiser = denoiser.with_network(runtime.parallel(self.network))
        self.method = METHODS.build(
            recipe.method,
            denoiser=self.denoiser if method_of(recipe).trains_denoiser else denoiser,
            recipe=recipe,
            runtime=runtime,
        )
        self.optimizer = make_optimizer(recipe, self.parameters, runtime)
        self.ema = (
            EMA(self.network, half_life=recipe.ema.half_life, ramp=recipe.ema.ramp)
            if recipe.ema.half_life
            else None
        )
        saved = SIGMA_RELS if recipe.ema.snapshots else ()
        self.averages = {sigma_rel: PowerFunctionEMA(self.network, sigma_rel) for sigma_rel in saved}
        rows, fields = (conditions.rows, conditions.vocabulary.widths) if conditions else (None, ())
        self.loader = BatchLoader(
            TrainingBatches(dataset, self.train_index, recipe, denoiser.schedule, rows, fields, signals),
            runtime,
        )
        self._unmoved = UnmovedParameters(
            dict(self.network.named_parameters()) | self.method.prepared_parameters()
        )
        self.unmoved: list[str] = []
        self.early: bytes | None = None
        self.images, self.seconds, self.bad_steps, self.whole = 0, 0.0, 0, True
        self.loss_scale = LOSS_SCALE if runtime.dtype is torch.float16 else 1.0

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begins with the weights of a trained model instead of random ones."""
        assert isinstance(self.network, Network)
        self.network.load_compatible(weights)
        averages = [average.network for average in self.averages.values()]
        for network in (*([self.ema.network] if self.ema else []), *averages):
            network.load_state_dict(self.network.state_dict())

    def step(self, batch: Batch, learning_rate: float, share: float) -> float:
        """One update. share: of the training that is done, in [0, 1].

        Returns the loss. Where it or the gradient is not finite, and where computing them fails, weights and
        averages stay as they were.
        """
        recipe, runtime = self.recipe, self.runtime
        # Dropout and augmentation use random numbers where the loss is computed.
        torch.manual_seed(stream_seed(recipe.seed, Purpose.DROPOUT, self.images, runtime.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        buffers = [b.clone() for b in self.buffers]
        try:
            prepared = self.method.prepare(batch.x0, batch.eps, self.images, share, learning_rate)
            if not self.network.training:
                self.network.train()
            total = self._backward(batch)
            self.unmoved = self._unmoved.after_backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip or math.inf)
            mean_loss, norm = torch.stack([runtime.mean(total), norm]).tolist()  # a GPU is waited for once
        except Exception:
            self._leave_out(buffers)
            raise
        self.images += recipe.batch
        if prepared and math.isfinite(mean_loss) and math.isfinite(norm):
            self.whole = False
            self.optimizer.step()
            self.bad_steps = 0
            for average in (*([self.ema] if self.ema else []), *self.averages.values()):
                average.update(self.images, recipe.batch)  # type: ignore[attr-defined]
            self.whole = True
        else:
            self._leave_out(buffers)
            if self.loss_scale > 1:
                self.loss_scale /= 2
            else:
                self.bad_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        every = UPDATES_TO_DOUBLE * recipe.batch
        if runtime.dtype is torch.float16 and self.images % every < recipe.batch:
            self.loss_scale = min(2 * self.loss_scale, LOSS_SCALE)
        return mean_loss

    def _leave_out(self, buffers: list[Tensor]) -> None:
        """Puts back what an update changed that is not to be: the buffers, and what `prepare` changed."""
        self.method.undo_prepare()
        for buffer, before in zip(self.buffers, buffers, strict=True):
            buffer.copy_(before)
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the mean loss, piece by piece. Returns the mean loss over this process's part."""
        runtime, pieces = self.runtime, self.recipe.accumulate
        total = torch.zeros((), device=runtime.device)
        conds = [None] * pieces if batch.cond is None else batch.cond.chunk(pieces)
        signals = (part.chunk(pieces) for part in (batch.x0, batch.t, batch.eps))
        for i, (x0, t, eps, cond) in enumerate(zip(*signals, conds, strict=True)):
            last = i == pieces - 1
            with nullcontext() if last else accumulating(self.denoiser.network):
                with runtime.autocast():
                    rows = None if cond is None else cond.to(runtime.device)
                    losses = self.method.losses(x0, t, eps, rows)
                value = losses.sum() / len(batch.x0)
                (self.loss_scale * value).backward()
            if i == 0 and not last and "cuda" in runtime.device:
                # The recorded kernels of the next piece write where these did.
                for p in self.parameters:
                    p.grad = None if p.grad is None else p.grad.clone()
            total += value.detach()
        if self.loss_scale != 1:
            for p in self.parameters:
                if p.grad is not None:
                    p.grad /= self.loss_scale
        return total

    def evaluated(self) -> NetworkDenoiser:
        """The denoiser that samples: with the averaged weights where there is an EMA, not compiled."""
        network = self.ema.network if self.ema else self.network
        return self.denoiser.with_network(network).eval()

    def keep_early(self) -> None:
        """Keeps the weights as they are now, in half precision, for autoguidance."""
        network = self.ema.network if self.ema else self.network
        half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
        self.early = pack_tensors(half)

    def averaged(self) -> dict[str, Tensor]:
        """The parameters averaged with each length of `SIGMA_RELS`: "SIGMA_REL/PARAMETER" → tensor."""
        return {
            f"{sigma_rel}/{name}": value
            for sigma_rel, average in self.averages.items()
            for name, value in average.network.named_parameters()
        }

    def shared_files(self) -> dict[str, bytes]:
        """The files that both a checkpoint and the model folder hold, where the training has them."""
        files = {}
        if self.conditions:
            files["vocabulary.json"] = pack_json(self.conditions.vocabulary.to_dict())
            files["label_frequencies.json"] = pack_json(self.conditions.label_frequencies)
        if self.early:
            files["early.safetensors"] = self.early
        return files

    def files(self, statistics: bytes) -> dict[str, bytes]:
        """The files of a checkpoint. statistics: of the training data, statistics.safetensors."""
        state = {
            "images": self.images,
            "seconds": self.seconds,
            "bad_steps": self.bad_steps,
            "loss_scale": self.loss_scale,
            "data": self.fingerprint,
            "runtime": self.runtime.to_dict(),
            "processes": self.runtime.world_size,
        }
        files = {
            "model.safetensors": pack_tensors(self.network.state_dict()),
            "optimizer.safetensors": pack_optimizer(self.optimizer),
            "statistics.safetensors": statistics,
            "state.json": pack_json(state),
            **self.method.state_files(),
            **self.shared_files(),
        }
        if self.ema:
            files["ema.safetensors"] = pack_tensors(self.ema.network.state_dict())
        if self.averages:
            files["averages.safetensors"] = pack_tensors(self.averaged())
        return files

    def load(self, files: Mapping[str, bytes], state: Mapping[str, Any], path: Path) -> None:
        """Puts back what `files` took. Raises AlphabarError naming ``path`` where the weights do not fit."""
        load_weights(self.network, tensors_in(files, "model.safetensors", path), path)
        if self.ema:
            load_weights(self.ema.network, tensors_in(files, "ema.safetensors", path), path)
        if self.averages:
            saved = tensors_in(files, "averages.safetensors", path)
            for name, value in self.averaged().items():
                value.copy_(saved[name])
        unpack_optimizer(files["optimizer.safetensors"], self.optimizer)
        self.method.load_state(files)
        self.early = files.get("early.safetensors")
        self.images, self.seconds, self.bad_steps = state["images"], state["seconds"], state["bad_steps"]
        if state["runtime"]["dtype"] == "float16" and self.runtime.dtype is torch.float16:
            self.loss_scale = state["loss_scale"]


def _fingerprint(dataset: Dataset, conditions: Conditions | None) -> str:
    """Of items and condition rows: a resumed training must see the same ones."""
    if conditions is None:
        return dataset.fingerprint
    return hashlib.sha256(dataset.fingerprint.encode() + conditions.rows.numpy().tobytes()).hexdigest()
