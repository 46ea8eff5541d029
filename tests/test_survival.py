import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "crash_safety.py"


@pytest.mark.slow
def test_twenty_kills_change_no_bit():
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| yes |") == 3
