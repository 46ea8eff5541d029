"""Which picture a name in a table means."""

import re
from collections.abc import Iterable
from pathlib import Path

from alphabar.formatting import folded


class Names:
    """Finds the picture that a name in a table means.

    keys: those of all pictures. An exact name wins; then case, Unicode normalization (NFC, NFD) and
    backslashes are overlooked, a picture's suffix may be missing, and of absolute paths as much of the end is
    used as there is here.
    """

    def __init__(self, keys: Iterable[str], root: Path):
        self._keys = set(keys)
        self._root = root.resolve()
        self._depth = max((key.count("/") + 1 for key in self._keys), default=0)
        self._whole: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._files: dict[str, list[str]] = {}  # by the last part, with its suffix and without
        for key in sorted(self._keys):
            name = folded(key)
            self._whole.setdefault(name, []).append(key)
            self._stems.setdefault(stem(name), []).append(key)
            for file in {name.rpartition("/")[2], stem(name).rpartition("/")[2]}:
                self._files.setdefault(file, []).append(key)

    def find_all(self, folder: str, names: Iterable[str | None], near: str = "") -> list[str | None]:
        """The keys of the pictures that a table calls by names, None for each that is none.

        folder: the table's, as a key. Where none of the names is found in it, they may be those of pictures
        in folders below it, as far as only one picture there has that name; near: of several, one in a folder
        of this name, as those that train.csv names are in the folder train.
        """
        names = list(names)
        found = [None if name is None else self.find(folder, name) for name in names]
        if any(key is not None for key in found):
            return found
        return [
            None if name is None else self._below(folder, printable(name), folded(near)) for name in names
        ]

    def find(self, folder: str, name: str) -> str | None:
        """The key of the picture that a table calls by a name, or None. folder: the table's, as a key."""
        exact = printable(name.replace("\\", "\\\\"))  # as keys are: with two for one
        name = printable(name)
        plain = name.strip().replace("\\", "/")
        for each in dict.fromkeys((exact, name, name.strip(), plain)):
            if (key := self.joined(folder, each)) in self._keys:
                return key
        absolute = plain.startswith(("/", "file:")) or re.match(r"[A-Za-z]:", plain) is not None
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        above = {folded(part) for part in (self._root.name, *folder.split("/")) if part}
        longest = 2 * (self._depth + folder.count("/") + 1)  # of what leads to a picture, also upwards
        if len(parts) > longest and not absolute:
            return None
        for start in range(max(0, len(parts) - longest), len(parts)):
            for place in dict.fromkeys((folder, "")) if "/" in plain else (folder,):
                wanted = folded(self.joined(place, "/".join(parts[start:])))
                found = self._whole.get(wanted) or self._stems.get(wanted, [])
                if len(found) == 1:
                    return found[0]
            if not absolute and folded(parts[start]) not in above:
                break
        return None

    def _below(self, folder: str, name: str, near: str) -> str | None:
        above, _, file = folded(self.joined("", name.strip().replace("\\", "/"))).rpartition("/")
        found = [
            key
            for key in self._files.get(file, [])
            if key.startswith(f"{folder}/" if folder else "")
            and f"/{folded(key).rpartition('/')[0]}".endswith(f"/{above}" if above else "")
        ]
        if len(found) > 1:
            found = [key for key in found if near in folded(key).split("/")[:-1]]
        return found[0] if len(found) == 1 else None

    @staticmethod
    def joined(folder: str, name: str) -> str:
        """The key of a name in a folder, normalised as text and not by the file system: links stay."""
        parts: list[str] = []
        for part in f"{folder}/{name}".split("/"):
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)


def stem(name: str) -> str:
    """A name without the suffix of its last part."""
    return name.rpartition(".")[0] if "." in name.rpartition("/")[2][1:] else name


def printable(name: str) -> str:
    """A name as a key: Linux allows file names that are no text, but a key is shown and stored."""
    text = name.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
