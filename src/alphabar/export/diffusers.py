"""Export to diffusers: a folder that ``DiffusionPipeline.from_pretrained`` loads, without alphabar.

The network is a UNet2DModel where one computes the same, and otherwise a self-contained copy of alphabar's
own code of that network, made by `bundle`. The pipeline is such a copy too.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alphabar.codecs.base import LearnedCodec
from alphabar.conditioning.fields import Text
from alphabar.errors import UsageError
from alphabar.export.base import Export, MakeItems, Target
from alphabar.export.bundle import bundle
from alphabar.export.hub import refuse_other_models
from alphabar.export.unet2d import is_exact, unet2d_config, unet2d_weights
from alphabar.files import Damaged, pack_json, parse_json, read_plain_file, write_file
from alphabar.guidance import GUIDANCES
from alphabar.messages import message, reader_language, translated
from alphabar.networks.unet import UNet
from alphabar.progress import Progress
from alphabar.runs.model import Model, fingerprint
from alphabar.tensor_files import pack_tensors, unpack_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
ENCODER = "alphabar.conditioning.text_encoder.embed"
AFTER = ("classifier",)  # guidances that need another model beside this one

EXAMPLE = """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
pipe(4, seed=0).images[0].save("sample.png")
```
"""


class Diffusers(Target):
    """A folder for ``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`` of diffusers."""

    modules = ("diffusers",)
    extra = "diffusers"

    def check(self, export: Export) -> None:
        """Raises UsageError for what the pipeline cannot do without alphabar, and as every target."""
        super().check(export)
        recipe = export.model.recipe
        if isinstance(export.model.codec, LearnedCodec):
            raise UsageError("diffusers.no_latents")
        if recipe.data.codec["name"] != "image":
            raise UsageError("export.no_pictures", codec=recipe.data.codec["name"])
        if recipe.extensions:
            names = [each["name"] for each in recipe.extensions]
            raise UsageError("diffusers.needs_extension", model=export.model.path, names=", ".join(names))
        refuse_other_models(export)

    def write(self, export: Export, folder: Path) -> Iterator[Progress[Mapping[str, Any]]]:
        """Writes model_index.json, pipeline.py and a folder for each component."""
        yield Progress(message("export.writing"), 0, 1)
        model = export.model
        mapped = is_exact(model.denoiser.network) and (not model.early or is_exact(model.early.network))
        components: dict[str, tuple[str, str] | tuple[None, None]] = {
            "early": (None, None),
            "condition": (None, None),
        }
        components["statistics"] = _write_statistics(model, folder / "statistics")
        networks = {"unet": model.denoiser, "early": model.early}
        for name, denoiser in networks.items():
            if denoiser is not None:
                write = _write_mapped if mapped else _write_network
                components[name] = write(model, denoiser.network, folder / name)
        if mapped and model.vocabulary is not None:
            components["condition"] = _write_condition(model.denoiser.network, folder / "condition")
        checksums: dict[str, str] = {
            name: fingerprint(unpack_tensors(file.read_bytes()))
            for name in components
            if (file := folder / name / WEIGHTS).exists()
        }
        index: dict[str, Any] = {
            "_class_name": ["pipeline", "AlphabarPipeline"],
            "_diffusers_version": version("diffusers"),
            **{name: list(kind) for name, kind in components.items()},
            "settings": {**_settings(export, mapped), "checksums": checksums},
        }
        write_file(folder / "model_index.json", pack_json(index))
        write_file(folder / "pipeline.py", _pipeline_code(model).encode())
        write_file(folder / "README.md", _readme(export).encode())
        yield Progress(message("export.writing"), 1, 1, {"network": components["unet"][1]})

    def load(self, export: Export, folder: Path) -> MakeItems:
        """What generates samples with the pipeline in a folder. Raises Damaged where it cannot be loaded."""
        pipe = load_pipeline(folder, export.model.device)

        def make(first: int, count: int) -> Tensor:
            made = pipe(
                count,
                seed=export.settings.seed,
                first=first,
                output_type="pt",
            )
            return export.model.codec.decode(made.images.cpu())

        return make


def load_pipeline(folder: Path, device: torch.device | str = "cpu") -> Any:
    """The pipeline in a folder. It runs the code in that folder, so it must be one that can be trusted.

    Raises Damaged where the folder is no whole export.
    """
    file = folder / "model_index.json"
    try:
        parse_json(read_plain_file(file), file, dict)
        from diffusers import DiffusionPipeline  # which takes seconds
        from diffusers.utils import logging

        logging.disable_progress_bar()
        pipe = DiffusionPipeline.from_pretrained(str(folder), trust_remote_code=True, low_cpu_mem_usage=False)
    except FileNotFoundError:
        raise Damaged("files.incomplete", path=folder, missing=file.name) from None
    except (OSError, ValueError, RuntimeError) as problem:
        raise Damaged("files.unreadable", path=folder, reason=" ".join(str(problem).split())[:200]) from None
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _settings(export: Export, mapped: bool) -> dict[str, Any]:
    """What the pipeline needs to know beside its components, as JSON holds it."""
    model, settings = export.model, export.settings
    recipe, method = model.recipe, model.method
    return {
        "shape": list(model.shape),
        "patch": recipe.network.get("patch", 1),
        "schedule": recipe.schedule,
        "parameterization": recipe.parameterization,
        "coarse": recipe.coarse,
        "sampling": {
            "sampler": settings.sampler,
            "timesteps": settings.timesteps,
            "steps": settings.steps,
            "initial_noise": settings.initial_noise,
            "guidance": [dict(spec) for spec in settings.guidance],
            "guidance_interval": settings.guidance_interval,
            "fixed": method.fixed_sampling or method.one_step,
        },
        "vocabulary": model.vocabulary and model.vocabulary.to_dict(),
        "label_frequencies": [dict(labels) for labels in settings.conditions],
    }


def _write_component(
    folder: Path, kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor], code: str | None = None
) -> None:
    folder.mkdir()
    about = {"_class_name": kind, "_diffusers_version": version("diffusers"), **config}
    write_file(folder / "config.json", pack_json(about))
    write_file(folder / WEIGHTS, pack_tensors({name: value.clone() for name, value in weights.items()}))
    if code is not None:
        write_file(folder / f"{folder.name}.py", code.encode())


def _write_network(model: Model, network: nn.Module, folder: Path) -> tuple[str, str]:
    """The network with a copy of its code. Returns how diffusers finds its class."""
    recipe = model.recipe
    conditions = getattr(getattr(network, "embed_cond", None), "fields", ())
    config = {
        "architecture": recipe.network,
        "channels": model.codec.channels,
        "conditions": list(conditions),
    }
    code = _bundle("network", only={"NETWORKS": [recipe.network["name"]]})
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    _write_component(folder, "AlphabarNetwork", config, weights, code)
    return folder.name, "AlphabarNetwork"


def _write_mapped(model: Model, network: nn.Module, folder: Path) -> tuple[str, str]:
    """The network as a UNet2DModel."""
    assert isinstance(network, UNet)
    config = unet2d_config(network, model.codec.spatial)
    _write_component(folder, "UNet2DModel", config, unet2d_weights(network))
    return "diffusers", "UNet2DModel"


def _write_condition(network: Any, folder: Path) -> tuple[str, str]:
    """The embedding of conditions that a UNet2DModel has no place for."""
    embed = network.embed_cond
    config = {"conditions": list(embed.fields), "dim": embed.unknown.shape[1]}
    weights = {f"embed.{name}": value for name, value in embed.state_dict().items()}
    code = _bundle("condition")
    _write_component(folder, "AlphabarCondition", config, weights, code)
    return folder.name, "AlphabarCondition"


def _write_statistics(model: Model, folder: Path) -> tuple[str, str]:
    """The statistics of the training data."""
    config = {"shape": list(model.shape), "coarse": len(model.statistics.factor)}
    code = _bundle("statistics")
    _write_component(folder, "AlphabarStatistics", config, model.statistics._asdict(), code)
    return folder.name, "AlphabarStatistics"


def _pipeline_code(model: Model) -> str:
    fields = model.vocabulary.fields if model.vocabulary else ()
    takes_text = any(isinstance(field, Text) for field in fields)
    return _bundle(
        "pipeline",
        only={"GUIDANCES": [name for name in GUIDANCES if name not in AFTER]},
        stand_ins={} if takes_text else {ENCODER: "alphabar.export.standalone.embed"},
    )


def _bundle(name: str, **options: Any) -> str:
    """A self-contained copy of one of the modules for diffusers."""
    about = f"Made of the source files of alphabar {version('alphabar')} by its export. Licence: MIT."
    return bundle(f"alphabar.export.diffusers_{name}", about, **options)


def _readme(export: Export) -> str:
    """How to load the folder."""
    said = reader_language()
    lines = [f"# {export.model.path.name}", "", translated(message("diffusers.readme"), said), "", EXAMPLE]
    return "\n".join(lines)
