import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# Tests run side by side, one a core; two threads each would only wait for one another.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither use nor fill the person's cache."""
    os.environ["ALPHABAR_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process, in a language: (exit code, stdout, stderr)."""
    from alphabar.cli.__main__ import main

    def run(*args, language="en"):
        monkeypatch.setenv("ALPHABAR_LANGUAGE", language)
        monkeypatch.setattr(sys, "argv", ["alphabar", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def permissions_hold() -> Iterator[None]:
    """For this test permissions of files hold for root too: it gives up the right to pass over them."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("nothing is closed to root")
    # capset(2): a header of version 3 for this thread, then two words each of effective, permitted and
    # inheritable capabilities.
    libc = ctypes.CDLL(None, use_errno=True)
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, rights) == 0
    before = rights[0]
    rights[0] = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0
    try:
        yield
    finally:
        rights[0] = before
        assert libc.capset(header, rights) == 0


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory) -> Path:
    """Forty smooth 24×24 pictures that differ in colour and direction."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] / 24
    for i in range(40):
        angle, colour = rng.uniform(0, np.pi), rng.uniform(0.2, 1, 3)
        ramp = 0.5 + 0.5 * np.sin(6 * (x * np.cos(angle) + y * np.sin(angle)) + i)
        Image.fromarray((255 * ramp[..., None] * colour).astype(np.uint8)).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="session")
def stanford_cars() -> Path:
    path = Path(os.environ.get("ALPHABAR_STANFORD_CARS", ROOT.parent / "shared/data/stanford_cars"))
    if not path.is_dir():
        pytest.skip(f"the Stanford Cars pictures are not at {path}")
    return path
