"""The program that reads MATLAB files for `mat_files`, in a process of its own.

A damaged file can make SciPy end its process. Nothing but NumPy and SciPy is loaded, to start quickly.

stdin: JSON with the ``sys.path`` of the process that starts it, the paths of the files, and the names of the
variables. stdout: after each file a line of JSON, the path with the variables that it has, or with the error.
"""

import json
import sys
from contextlib import suppress
from typing import Any

BYTES = 4 * 2**30  # of memory that the process may take, where the system can tell it
LONGEST = 2**26  # characters of an answer: the devkit's longest has 3 million


def read(path: str, variables: list[str]) -> dict[str, Any]:
    """The variables of a file as lists and dicts, or what is wrong with it."""
    try:
        from scipy.io import loadmat

        found = loadmat(path, squeeze_me=True, variable_names=variables)
        values = {name: plain(found[name]) for name in variables if name in found}
        if len(json.dumps(values, default=str)) > LONGEST:
            raise ValueError("too large")
        return {"values": values}
    except Exception as error:  # loadmat raises whatever a damaged file leads it to
        return {"error": " ".join(str(error).split())[:200] or type(error).__name__}


def plain(value: Any) -> Any:
    """A value of NumPy as one of JSON; a record becomes a dict."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    if getattr(value, "ndim", 0):
        return [plain(each) for each in value] if names or value.dtype.hasobject else value.tolist()
    if names:
        record = value[()]
        return {name: plain(record[name]) for name in names}
    return value.item() if hasattr(value, "item") else value


def main() -> None:
    """Read what stdin asks for."""
    request = json.load(sys.stdin)
    sys.path[:] = request["sys_path"]
    with suppress(ImportError, OSError, ValueError):  # Windows; where it is bounded already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for path in request["paths"]:
        print(json.dumps({path: read(path, request["variables"])}, default=str), flush=True)


if __name__ == "__main__":
    main()
