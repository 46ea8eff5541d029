"""Stand-ins for what would need more packages than the program that an export is for brings.

`bundle` puts them in the place of alphabar's own; each does what it replaces does, for values that an export
has already checked.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

CATALOGUE: dict[str, dict[str, str]] = {}


def catalogue() -> dict[str, dict[str, str]]:
    """`alphabar.messages.catalogue`: in a bundle the messages that its code names, here none."""
    return CATALOGUE


def embed(sentences: Any, cache: Any = None) -> Any:
    """In the place of the encoder of sentences, for a model that takes none. Raises TypeError."""
    raise TypeError(f"this model takes no sentences: {sentences}")


class Registry(dict[str, Callable[..., Any]]):
    """`alphabar.registry.Registry` without the checks of types, for which pydantic would be needed."""

    def __init__(self, kind: str, choices: Mapping[str, Callable[..., Any]]):
        super().__init__(choices)
        self.kind = kind

    def resolve(self, spec: str | Mapping[str, Any]) -> dict[str, Any]:
        """The spec as a mapping. Raises ValueError for an unknown name."""
        given = {"name": spec} if isinstance(spec, str) else dict(spec)
        if given["name"] not in self:
            raise ValueError(f"there is no {self.kind} {given['name']!r}; there are {', '.join(self)}")
        parameters = inspect.signature(self[given["name"]]).parameters.values()
        settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {key: value for key, value in settings.items() if value is not inspect.Parameter.empty} | given

    def build(self, spec: str | Mapping[str, Any], **context: Any) -> Any:
        """The object that a spec describes: an instance of a class, or a function with its settings bound."""
        resolved = self.resolve(spec)
        choice = self[resolved.pop("name")]
        return (
            choice(**context, **resolved)
            if inspect.isclass(choice)
            else partial(choice, **context, **resolved)
        )
