"""Variables of MATLAB files, read by a process of their own, which a damaged file may crash."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from alphabar.codecs.base import one_line
from alphabar.messages import message

CHILD = Path(__file__).with_name("mat_child.py")
SECONDS = 60.0  # that the process may take, from its start


class MatFile(NamedTuple):
    """What was read of a file: variables by name, as lists, dicts and values of JSON; or what is wrong."""

    values: dict[str, Any]
    error: str = ""


def read_mat_files(paths: Iterable[Path], variables: Sequence[str]) -> dict[Path, MatFile]:
    """The variables of these names in each file, as far as it has them.

    One process reads all files. It is started again for the rest where a file ends it or takes too long.
    """
    wanted = {str(path): path for path in paths}
    read: dict[Path, MatFile] = {}
    while wanted:
        output, end = _output_of(list(wanted), variables)
        for line in output.splitlines():
            with suppress(ValueError):  # cut by the end of the process
                for name, answer in json.loads(line).items():
                    read[wanted.pop(name)] = MatFile(answer.get("values", {}), answer.get("error", ""))
        if wanted:  # the first that is not answered ended the process
            read[wanted.pop(next(iter(wanted)))] = MatFile({}, end)
    return read


def _output_of(paths: Sequence[str], variables: Sequence[str]) -> tuple[bytes, str]:
    """What the process has written, and how it ended."""
    request = {"sys_path": sys.path, "paths": paths, "variables": variables}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(CHILD)],  # -P: the modules beside it are not those of Python
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread takes memory
        )
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", message("data.mat_endless", seconds=SECONDS)
    except OSError as error:
        return b"", one_line(error)
    return done.stdout, message("data.mat_crashed", code=done.returncode)
