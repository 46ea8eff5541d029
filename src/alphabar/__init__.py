"""alphabar: train diffusion models on your own data, measure how good they are, and use them for every task.

The public API; names are imported when they are first used, so that ``import alphabar`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # also in pyproject.toml

_MODULES = {
    "AlphabarError": "errors",
    "UsageError": "errors",
    "Progress": "progress",
    "last": "progress",
    "load_extension": "extensions",
    "load_installed_extensions": "extensions",
    "open_source": "data.sources",
    "prepare": "data.dataset",
    "inspect": "data.inspect",
    "Recipe": "recipes.schema",
    "named_recipe": "recipes.presets",
    "with_settings": "recipes.overrides",
    "Run": "runs.run",
    "begin": "training.loop",
    "train": "training.loop",
    "launch": "training.launch",
    "Model": "runs.model",
    "load_model": "runs.model",
    "sampling_settings": "sampling.settings",
    "sample": "sampling.sample",
    "interpolate": "sampling.interpolate",
    "edit": "sampling.edit",
    "export_to": "export.export",
    "restoration_settings": "restoration.settings",
    "restore": "restoration.restore",
    "parse_degradation": "restoration.degradation",
    "evaluate": "evaluation.evaluate",
    "compare": "reporting.comparison",
    "write_report": "reporting.report",
}

__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:
    from alphabar.data.dataset import prepare as prepare
    from alphabar.data.inspect import inspect as inspect
    from alphabar.data.sources import open_source as open_source
    from alphabar.errors import AlphabarError as AlphabarError
    from alphabar.errors import UsageError as UsageError
    from alphabar.evaluation.evaluate import evaluate as evaluate
    from alphabar.export.export import export_to as export_to
    from alphabar.extensions import load_extension as load_extension
    from alphabar.extensions import load_installed_extensions as load_installed_extensions
    from alphabar.progress import Progress as Progress
    from alphabar.progress import last as last
    from alphabar.recipes.overrides import with_settings as with_settings
    from alphabar.recipes.presets import named_recipe as named_recipe
    from alphabar.recipes.schema import Recipe as Recipe
    from alphabar.reporting.comparison import compare as compare
    from alphabar.reporting.report import write_report as write_report
    from alphabar.restoration.degradation import parse_degradation as parse_degradation
    from alphabar.restoration.restore import restore as restore
    from alphabar.restoration.settings import restoration_settings as restoration_settings
    from alphabar.runs.model import Model as Model
    from alphabar.runs.model import load_model as load_model
    from alphabar.runs.run import Run as Run
    from alphabar.sampling.edit import edit as edit
    from alphabar.sampling.interpolate import interpolate as interpolate
    from alphabar.sampling.sample import sample as sample
    from alphabar.sampling.settings import sampling_settings as sampling_settings
    from alphabar.training.launch import launch as launch
    from alphabar.training.loop import begin as begin
    from alphabar.training.loop import train as train


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'alphabar' has no attribute {name!r}")
    return getattr(import_module(f"alphabar.{_MODULES[name]}"), name)
