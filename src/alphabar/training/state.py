"""TODO-DOC from training.trainer"""

import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alphabar.conditioning.label_frequencies import LabelFrequencies
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.data.dataset import Dataset
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.random import stream_seed
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json
from alphabar.methods.registry import METHODS, is_diffusion
from alphabar.networks.base import Network
from alphabar.recipes.schema import Recipe
from alphabar.runs.ema import SIGMA_RELS, Ema, PowerFunctionEma
from alphabar.runs.model import build_denoiser, load_weights
from alphabar.runtime import Runtime, accumulating
from alphabar.tensor_files import pack_optimizer, pack_tensors, unpack_optimizer, unpack_tensors
from alphabar.training.batches import Batch, TrainingBatches, loading_threads
from alphabar.training.labels import conditions_of
from alphabar.training.optimizers import make_optimizer

# In fp16 gradients below 6e-8 are zero and those above 65,504 infinite. So the loss is scaled for the
# backward pass: by half as much after an infinite gradient, by twice as much after so many steps
# (Micikevicius et al. 2018, 3.2).
LOSS_SCALE, STEPS_TO_DOUBLE = 2.0**16, 2_000


class TrainingState:
    """The state of a training and the one step that moves it."""

    def __init__(self, dataset: Dataset, recipe: Recipe, runtime: Runtime):
        self.recipe, self.runtime = recipe, runtime
        if recipe.batch % (runtime.world_size * recipe.accumulate):
            raise UsageError(
                f"batch = {recipe.batch} cannot be shared by {runtime.world_size} processes"
                f" in {recipe.accumulate} equal pieces each"
            )
        train_index, _ = dataset.split(recipe.data.held_out)
        if len(train_index) == 0:
            raise AlphabarError(
                f"no picture is left for training: {len(dataset.items)} in all,"
                f" data.held_out = {recipe.data.held_out}"
            )
        self.vocabulary: Vocabulary | None = None
        self.label_frequencies: LabelFrequencies = ()
        self.cond: Tensor | None = None
        if conditions := conditions_of(dataset, recipe):
            self.vocabulary, self.label_frequencies, self.cond = conditions
        self.fingerprint = dataset.fingerprint
        if self.cond is not None:
            # Labels are no part of the pictures' fingerprint, but a resumed training must see the same ones.
            known = dataset.fingerprint.encode() + self.cond.numpy().tobytes()
            self.fingerprint = hashlib.sha256(known).hexdigest()
        denoiser = build_denoiser(recipe, self.vocabulary)
        self.network = denoiser.network
        runtime.place(self.network)
        # Looked up once: a GPU would wait for it at every step.
        self.parameters, self.buffers = list(self.network.parameters()), list(self.network.buffers())
        self.denoiser = NetworkDenoiser(
            runtime.parallel(self.network), denoiser.parameterization, denoiser.schedule
        )
        self.method = METHODS.build(
            recipe.method,
            denoiser=self.denoiser if is_diffusion(recipe) else denoiser,
            recipe=recipe,
            runtime=runtime,
        )
        self.optimizer = make_optimizer(recipe, self.parameters, runtime)
        self.ema = (
            Ema(self.network, half_life=recipe.ema.half_life, ramp=recipe.ema.ramp)
            if recipe.ema.half_life
            else None
        )
        kept = SIGMA_RELS if recipe.ema.snapshots else ()
        self.averages = {length: PowerFunctionEma(self.network, length) for length in kept}
        self.early: bytes | None = None
        fields = self.vocabulary.widths if self.vocabulary else ()
        self.feed = TrainingBatches(dataset, train_index, recipe, denoiser, self.cond, fields)
        self.loaders = loading_threads(runtime.device)
        self.loader = ThreadPoolExecutor(self.loaders)
        self.images = 0
        self.seconds = 0.0
        self.bad_steps = 0
        self.loss_scale = LOSS_SCALE if runtime.dtype is torch.float16 else 1.0
        self.pending: list[Future[Batch]] | None = None

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with the weights of a trained model instead of random ones."""
        assert isinstance(self.network, Network)
        self.network.load_compatible(weights)
        averages = [average.network for average in self.averages.values()]
        for network in (*([self.ema.network] if self.ema else []), *averages):
            network.load_state_dict(self.network.state_dict())

    def positions(self, images: int) -> range:
        local = self.recipe.batch // self.runtime.world_size
        first = images + self.runtime.rank * local
        return range(first, first + local)

    def load(self, images: int) -> "list[Future[Batch]]":
        """The batch after so many images, in as many pieces as there are threads to make them ready."""
        positions = self.positions(images)
        piece = math.ceil(len(positions) / self.loaders)
        pieces = [positions[i : i + piece] for i in range(0, len(positions), piece)]
        return [self.loader.submit(self.piece, each) for each in pieces]

    def piece(self, positions: range) -> Batch:
        """A part of a batch, in memory that a GPU takes from while it computes."""
        batch = self.feed.batch(positions)
        return Batch(*(part.pin_memory() for part in batch)) if "cuda" in self.runtime.device else batch

    def next_batch(self) -> Batch:
        """The batch for the images seen so far, its signals on the device; the one after it is prepared
        meanwhile."""
        pending = self.pending or self.load(self.images)
        self.pending = self.load(self.images + self.recipe.batch)
        x0, t, eps, cond = zip(*(piece.result() for piece in pending), strict=True)
        there = [torch.cat([self.runtime.put(piece) for piece in signal]) for signal in (x0, eps)]
        return Batch(there[0], torch.cat(t), there[1], torch.cat(cond))

    def step(self, batch: Batch, learning_rate: float, share: float) -> float:
        """One update. Returns the loss; where it or the gradient is not finite nothing is changed."""
        recipe, runtime = self.recipe, self.runtime
        # Dropout and augmentation draw where the loss is computed.
        torch.manual_seed(stream_seed(recipe.seed, "dropout", self.images, runtime.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.method.prepare(batch.x0, batch.eps, self.images, share, learning_rate)
        buffers = [b.clone() for b in self.buffers]
        if not self.network.training:
            self.network.train()
        local = recipe.batch // runtime.world_size
        total = torch.zeros((), device=runtime.device)
        pieces = zip(*(part.chunk(recipe.accumulate) for part in batch), strict=True)
        for i, (x0, t, eps, cond) in enumerate(pieces):
            last = i == recipe.accumulate - 1
            with nullcontext() if last else accumulating(self.denoiser.network):
                with runtime.autocast():
                    asked = cond.to(runtime.device) if self.vocabulary else None
                    losses = self.method.losses(x0, t, eps, asked)
                value = losses.sum() / local
                (self.loss_scale * value).backward()
            if i == 0 and not last and "cuda" in runtime.device:
                # The next piece's recorded kernels write where these did.
                for p in self.parameters:
                    p.grad = None if p.grad is None else p.grad.clone()
            total += value.detach()
        if self.loss_scale != 1:
            for p in self.parameters:
                if p.grad is not None:
                    p.grad /= self.loss_scale
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip or math.inf)
        mean_loss, norm = torch.stack([runtime.mean(total), norm]).tolist()  # a GPU is waited for once
        if math.isfinite(mean_loss) and math.isfinite(norm):
            self.optimizer.step()
            self.bad_steps = 0
        else:
            for buffer, before in zip(self.buffers, buffers, strict=True):
                buffer.copy_(before)
            if self.loss_scale > 1:
                self.loss_scale /= 2
            else:
                self.bad_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.images += recipe.batch
        if runtime.dtype is torch.float16 and self.images % (STEPS_TO_DOUBLE * recipe.batch) == 0:
            self.loss_scale = min(2 * self.loss_scale, LOSS_SCALE)
        if self.ema:
            self.ema.update(self.images, recipe.batch)
        for average in self.averages.values():
            average.update(self.images, recipe.batch)
        return mean_loss

    def keep_early(self) -> None:
        """Keep the weights as they are now, at half the precision, for autoguidance."""
        network = self.ema.network if self.ema else self.network
        half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
        self.early = pack_tensors(half)

    def averaged(self) -> dict[str, Tensor]:
        """The parameters averaged over each of `LENGTHS`, by length and name."""
        return {
            f"{length}/{name}": value
            for length, average in self.averages.items()
            for name, value in average.network.named_parameters()
        }

    def lasting(self) -> dict[str, bytes]:
        """The files that a checkpoint and the model folder share, where the training has them."""
        files = {}
        if self.vocabulary:
            files["vocabulary.json"] = pack_json(self.vocabulary.to_dict())
            files["label_frequencies.json"] = pack_json(self.label_frequencies)
        if self.early:
            files["early.safetensors"] = self.early
        return files

    def files(self, statistics: bytes) -> dict[str, bytes]:
        """The bytes of a checkpoint."""
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
            **self.method.files(),
            **self.lasting(),
        }
        if self.ema:
            files["ema.safetensors"] = pack_tensors(self.ema.network.state_dict())
        if self.averages:
            files["averages.safetensors"] = pack_tensors(self.averaged())
        return files

    def restore(self, files: dict[str, bytes], state: dict[str, Any], path: Path) -> None:
        load_weights(self.network, unpack_tensors(files["model.safetensors"]), path)
        if self.ema:
            load_weights(self.ema.network, unpack_tensors(files["ema.safetensors"]), path)
        if self.averages:
            kept = unpack_tensors(files["averages.safetensors"])
            for name, value in self.averaged().items():
                value.copy_(kept[name])
        unpack_optimizer(files["optimizer.safetensors"], self.optimizer)
        self.method.restore(files)
        self.early = files.get("early.safetensors")
        self.images, self.seconds, self.bad_steps = state["images"], state["seconds"], state["bad_steps"]
        if state["runtime"]["dtype"] == "float16" and self.runtime.dtype is torch.float16:
            self.loss_scale = state["loss_scale"]
