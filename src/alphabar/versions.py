"""Which alphabar and which PyTorch this is."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def commit() -> str | None:
    """The commit of the source, where alphabar runs from a git repository; else None."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return git.stdout.strip() or None


def version_line() -> str:
    """Versions of alphabar, PyTorch and Python and the system: what to quote in a report of a problem."""
    at = commit()
    named = f"alphabar {version('alphabar')}" + (f" (commit {at[:12]})" if at else "")
    return f"{named}, torch {version('torch')}, Python {platform.python_version()}, {platform.system()}"
