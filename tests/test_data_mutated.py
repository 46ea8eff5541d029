"""A short slice of the campaign of mutated files: nothing crashes, hangs, floods the memory or vanishes."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "hostile_files.py"


def test_a_hundred_mutated_files(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--count", "90", "--others", "10", "--readers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second time everything has been read before
        done = subprocess.run(
            [*command, "--folder", str(tmp_path / "found")], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "| **all** | 100 |" in done.stdout
    assert "100 files were read before, 0 are left" in done.stderr
