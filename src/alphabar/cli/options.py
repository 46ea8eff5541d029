"""Options that several commands share, and how their texts are read."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from alphabar.errors import UsageError
from alphabar.guidance import GUIDANCES
from alphabar.runs.model import Model
from alphabar.sampling.settings import SamplingSettings, sampling_settings
