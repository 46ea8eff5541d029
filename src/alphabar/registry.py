"""Named choices with settings: the one way from a line in a recipe to an object.

A registry maps a name to a class or a function. Its *settings* are the keyword-only
parameters that have defaults; everything else is context that the caller supplies. A *spec*
is what a recipe holds: a name, or ``{"name": ..., setting: value, ...}``, which on the command line is JSON.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from alphabar.errors import UsageError, kind_word, unknown
from alphabar.messages import message
from alphabar.validation import problem_of

Spec = str | Mapping[str, Any]


ADDED: list[tuple[str, str]] = []
"""What `Registry.register` has added, (kind, name), in order."""


class Registry(dict[str, Callable[..., Any]]):
    """Choices of one kind by name, for example ``Registry("sampler", {"ddim": ddim, ...})``."""

    def __init__(self, kind: str, choices: Mapping[str, Callable[..., Any]]):
        super().__init__(choices)
        self.kind = kind

    def register(self, name: str, choice: Callable[..., Any]) -> None:
        """Add a choice of one's own, from an extension. Raises UsageError for a name that is taken."""
        if name in self:
            raise UsageError("registry.taken", kind=self.kind, name=name)
        self[name] = choice
        ADDED.append((self.kind, name))

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of one choice with their defaults. Raises UsageError for an unknown name."""
        if name not in self:
            raise unknown(self.kind, name, self)
        parameters = inspect.signature(self[name]).parameters.values()
        return {
            p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }

    def resolve(self, spec: Spec) -> dict[str, Any]:
        """The spec written out: its name and every setting, checked and converted to its type.

        Raises UsageError naming an unknown choice or setting (with the nearest valid one), a setting of a
        choice that has none, or a value of the wrong type.
        """
        if isinstance(spec, str) and spec.startswith("{"):
            try:
                spec = json.loads(spec)
            except (ValueError, RecursionError) as error:
                kind = kind_word(self.kind)
                raise UsageError("registry.not_json", kind=kind, text=spec, problem=str(error)) from None
        given: dict[str, Any] = {**spec} if isinstance(spec, Mapping) else {"name": spec}
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(
                "registry.no_name",
                kind=kind_word(self.kind),
                text=repr(spec if name is None else name),
                known=", ".join(sorted(self)),
            )
        settings = self.settings(name)
        choice = self[name]
        hints = get_type_hints(choice.__init__ if inspect.isclass(choice) else choice, include_extras=True)
        for key, value in given.items():
            if not settings:
                raise UsageError("registry.no_settings", kind=self.kind, name=name, key=key)
            if key not in settings:
                raise unknown(message("registry.setting", kind=self.kind, name=name), key, settings)
            settings[key] = _convert(f"{self.kind.replace(' ', '_')}.{key}", value, hints.get(key, Any))
        return {"name": name, **settings}

    def build(self, spec: Spec, **context: Any) -> Any:
        """The object that a spec describes: an instance of a class, or a function with its settings bound."""
        resolved = self.resolve(spec)
        choice = self[resolved.pop("name")]
        if inspect.isclass(choice):
            return choice(**context, **resolved)
        return partial(choice, **context, **resolved) if context or resolved else choice


def _convert(where: str, value: Any, hint: Any) -> Any:
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(hint, config=config).validate_python(value)
    except ValidationError as error:
        problem = problem_of(error.errors()[0])
        raise UsageError("registry.bad_value", setting=where, value=repr(value), problem=problem) from None
