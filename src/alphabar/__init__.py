"""alphabar: train an image diffusion model on your own pictures, judge it honestly, use it.

The public API; names are imported when they are first used, so that ``import alphabar`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # also in pyproject.toml

_ROOMS = {
    "AlphabarError": "errors",
    "UsageError": "errors",
    "open_source": "data.sources",
    "prepare": "data.cache",
    "inspect": "data.inspect",
    "Recipe": "training.recipe",
    "named_recipe": "training.recipes",
    "with_settings": "training.recipe",
    "Run": "training.run",
    "begin": "training.trainer",
    "train": "training.trainer",
    "Model": "training.run",
    "load_model": "training.run",
    "settings": "sampling",
    "sample": "sampling",
    "restore": "restoring",
    "parse_degradation": "restoring",
    "evaluate": "evaluation",
    "compare": "reporting.compare",
    "write_report": "reporting.report",
}

__all__ = ["__version__", *_ROOMS]

if TYPE_CHECKING:
    from alphabar.data.cache import prepare as prepare
    from alphabar.data.inspect import inspect as inspect
    from alphabar.data.sources import open_source as open_source
    from alphabar.errors import AlphabarError as AlphabarError
    from alphabar.errors import UsageError as UsageError
    from alphabar.evaluation import evaluate as evaluate
    from alphabar.reporting.compare import compare as compare
    from alphabar.reporting.report import write_report as write_report
    from alphabar.restoring import parse_degradation as parse_degradation
    from alphabar.restoring import restore as restore
    from alphabar.sampling import sample as sample
    from alphabar.sampling import settings as settings
    from alphabar.training.recipe import Recipe as Recipe
    from alphabar.training.recipe import with_settings as with_settings
    from alphabar.training.recipes import named_recipe as named_recipe
    from alphabar.training.run import Model as Model
    from alphabar.training.run import Run as Run
    from alphabar.training.run import load_model as load_model
    from alphabar.training.trainer import begin as begin
    from alphabar.training.trainer import train as train


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'alphabar' has no attribute {name!r}")
    return getattr(import_module(f"alphabar.{_ROOMS[name]}"), name)
