"""A model of alphabar as a pipeline of diffusers. Exports hold a self-contained copy of this file."""

# The members of a pipeline are made when it is loaded.
# mypy: disable-error-code="attr-defined"

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from alphabar.codecs.image import decode_pictures, enlarge_thumbnails
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import NetworkDenoiser, without_condition
from alphabar.diffusion.initial_noise import INITIAL_NOISES, DataStatistics
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.samplers import SAMPLERS, generate, sampler_traits
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import build_guidances, guided, merge_guidance
from alphabar.messages import message
from alphabar.networks.layers import Attention
from alphabar.runs.model import fingerprint


class AlphabarPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Generates samples of a model that was trained with alphabar: the same as ``alphabar sample`` does.

    unet: the network, an `AlphabarNetwork` or, where it computes the same, a UNet2DModel. statistics: of the
    training data, for the initial noise. early: the network as it was early in its training, for
    autoguidance. condition: with a UNet2DModel, the embedding of conditions. settings: everything else, with
    checksums of the weights in float32.
    Raises ValueError for weights in float32 that are not those that were exported.
    """

    model_cpu_offload_seq = "condition->unet"
    _optional_components: ClassVar = ["early", "condition"]

    def __init__(self, unet, statistics, early=None, condition=None, settings=None):  # type: ignore[no-untyped-def]
        super().__init__()
        parts = {"unet": unet, "statistics": statistics, "early": early, "condition": condition}
        for name, checksum in settings["checksums"].items():
            weights = parts[name].state_dict()
            whole = all(value.dtype == torch.float32 for value in weights.values())  # as they were exported
            if whole and fingerprint(weights) != checksum:
                raise ValueError(message("diffusers.damaged", name=name))
        self.register_modules(unet=unet, statistics=statistics, early=early, condition=condition)
        self.register_to_config(settings=settings)
        fields = settings["vocabulary"]
        self.vocabulary = Vocabulary.from_dict(fields) if fields else None

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        seed: int = 0,
        first: int = 0,
        generator: torch.Generator | None = None,
        conditions: list[dict[str, str]] | None = None,
        guidance: dict[str, Any] | None = None,
        sampler: str | None = None,
        num_inference_steps: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Generate pictures.

        batch_size: how many. seed, first: sample number ``first`` and those that follow of that seed; the
            same numbers give the same samples in any batch. generator: decides the seed instead.
        conditions: of sample i entry i modulo their number, such as {"body": "SUV"}; [] for none. By default
            those of training samples: every class has the frequency that it has in the data.
        guidance: name → scale, such as {"pag": 3.0, "classifier_free": 2.0}; those of the model stay unless
            they are named; {} for none.
        sampler, num_inference_steps: in place of the model's own.
        output_type: "pil" for images, "np" for an array (n, h, w, channels) in [0, 1], "pt" for the signals
            (n, channels, h, w) in [-1, 1].

        Returns an ImagePipelineOutput, or with return_dict=False a tuple. Raises ValueError for no pictures.
        """
        if generator is not None:
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        own = self.config.settings
        denoiser, labels = self._denoiser(own, conditions, guidance)
        chosen, steps, times = _sampling(own["sampling"], sampler, num_inference_steps, denoiser.schedule)
        positions = _positions(first, batch_size)
        cond = None
        if labels and self.vocabulary is not None:
            rows = [self.vocabulary.row(labels[i % len(labels)]) for i in positions]
            cond = torch.stack(rows).to(self.device)
        noise = INITIAL_NOISES.build(
            own["sampling"]["initial_noise"],
            statistics=DataStatistics(self.statistics.mean, self.statistics.factor),
            codec=SimpleNamespace(refine=lambda coarse: enlarge_thumbnails(coarse, tuple(own["shape"]))),
        )
        made = generate(
            denoiser,
            shape=own["shape"],
            positions=positions,
            seed=seed,
            sampler=SAMPLERS.build(chosen),
            times=times,
            initial_noise=noise,
            cond=cond,
            device=self.device,
        )
        with self.progress_bar(total=steps) as bar:
            for step in made:
                x = step.x
                bar.update()
        images = _output(x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _denoiser(self, own: Any, conditions: Any, guidance: Any) -> tuple[Any, Any]:
        """The guided denoiser, and the conditions of the samples."""
        labels = own["label_frequencies"] if conditions is None else conditions
        if labels and self.vocabulary is None:
            raise UsageError("sampling.takes_no_condition", model=self.name_or_path)
        network, early = self._network(self.unet), self.early and self._network(self.early)
        denoiser: Any = _on_schedule(network, own)
        if self.vocabulary is None:
            denoiser = without_condition(denoiser)
        model = SimpleNamespace(
            denoiser=denoiser,
            early=early and _on_schedule(early, own),
            attention=network.middle_attention(),
            vocabulary=self.vocabulary,
            path=self.name_or_path,
        )
        specs = merge_guidance(own["sampling"]["guidance"], guidance or {}) if guidance != {} else ()
        bound = [each.bind(model, conditioned=bool(labels)) for each in build_guidances(specs)]
        return guided(denoiser, bound, interval=own["sampling"]["guidance_interval"]), labels

    def _network(self, component: Any) -> Any:
        if isinstance(component, UNet2DModel):
            return MappedUNet(component, self.condition, self.config.settings["patch"])
        return component


def _on_schedule(network: Any, own: Any) -> NetworkDenoiser:
    parameterization = PARAMETERIZATIONS.build(own["parameterization"])
    return NetworkDenoiser(network, parameterization, SCHEDULES.build(own["schedule"]), own["coarse"])


def _sampling(own: Any, sampler: str | None, steps: int | None, schedule: Any) -> tuple[Any, int, Tensor]:
    """The sampler, the number of its steps and the times that it visits: the model's own unless others are
    chosen."""
    chosen, timesteps, usual = own["sampler"], own["timesteps"], own["steps"]
    if sampler is not None and sampler != chosen["name"]:
        traits = sampler_traits(SAMPLERS.resolve(sampler)["name"])
        chosen, timesteps, usual = {"name": sampler}, traits.timesteps, traits.steps
    if own["fixed"] and (chosen is not own["sampler"] or steps not in (None, usual)):
        raise ValueError(f"this model samples with {own['sampler']['name']} in {own['steps']} steps only")
    steps = steps or usual
    return chosen, steps, TIMESTEPS.build(timesteps)(schedule, steps)


def _positions(first: int, n: int) -> range:
    if n < 1:
        raise ValueError(message("diffusers.too_few", n=n))
    return range(first, first + n)


def _output(signals: Tensor, output_type: str) -> Any:
    if output_type == "pt":
        return signals
    levels = decode_pictures(signals.cpu()).numpy()
    if output_type == "np":
        return levels.astype("float32") / 255
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in levels]


class MappedUNet(nn.Module):
    """A UNet2DModel that holds the weights of alphabar's network ``unet``, as that network.

    unet: cuts no patches itself. condition: embeds conditions, or None. patch: the side of a patch.
    """

    def __init__(self, unet: Any, condition: Any, patch: int):
        super().__init__()
        self.unet, self.condition, self.patch = unet, condition, patch

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F of shape (n, channels, h, w) for x of that shape, c_noise (n,) and cond (n, columns) or None."""
        labels = None if self.condition is None else self.condition(cond, len(x)).to(self.unet.dtype)
        # DDPM embeds steps 1 ... 1000; times in [0, 1] would all look alike to the sinusoids.
        patches = pixel_unshuffle(x.to(self.unet.dtype), self.patch)
        made = self.unet(patches, 1000 * c_noise, labels).sample
        return pixel_shuffle(made, self.patch)

    def middle_attention(self) -> Attention | None:
        """The self-attention in the middle, into which guidance can reach."""
        attentions = self.unet.mid_block.attentions
        if not attentions or attentions[0] is None:
            return None
        reached = MiddleAttention()
        attentions[0].set_processor(reached)
        return reached


class MiddleAttention(Attention):
    """The attention of a layer of diffusers, computed as `Attention` does, so that guidance reaches it."""

    def __call__(self, attention: Any, x: Tensor, *unused: Any, **more: Any) -> Tensor:
        """Features (n, width, h, w) → the same shape, with the layer's own projections."""
        n, width, h, w = x.shape
        flat = attention.group_norm(x.flatten(2)).transpose(1, 2)
        parts = [layer(flat).transpose(1, 2) for layer in (attention.to_q, attention.to_k, attention.to_v)]
        qkv = torch.stack(parts, 1).reshape(n, 3, attention.heads, width // attention.heads, h * w)
        made = self.attend(qkv, (h, w)).flatten(2).transpose(1, 2)
        return x + attention.to_out[0](made).transpose(1, 2).reshape(x.shape)
