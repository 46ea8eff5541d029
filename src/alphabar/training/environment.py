"""TODO-DOC from training.trainer"""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alphabar.data.dataset import Dataset
from alphabar.runtime import Runtime


def describe_environment(dataset: Dataset, runtime: Runtime) -> dict[str, Any]:
    here = Path(__file__).parent
    git = (
        subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        if (here.parents[2] / ".git").exists()
        else None
    )
    return {
        "alphabar": version("alphabar"),
        "commit": git.stdout.strip() if git and git.returncode == 0 else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "runtime": runtime.to_dict(),
        "data": {
            "fingerprint": dataset.fingerprint,
            "pictures": len(dataset.items),
            "skipped": len(dataset.skipped),
        },
    }
