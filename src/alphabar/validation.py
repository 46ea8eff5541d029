"""What pydantic finds wrong with a value, as messages of the catalogue."""

import reprlib
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alphabar.messages import Message, message

PROBLEMS = {
    "greater_than": "validation.greater_than",
    "greater_than_equal": "validation.greater_than_equal",
    "less_than": "validation.less_than",
    "less_than_equal": "validation.less_than_equal",
    "finite_number": "validation.finite_number",
    "int_type": "validation.whole_number",
    "int_parsing": "validation.whole_number",
    "int_from_float": "validation.whole_number",
    "int_parsing_size": "validation.too_many_digits",
    "float_type": "validation.number",
    "float_parsing": "validation.number",
    "bool_type": "validation.true_or_false",
    "bool_parsing": "validation.true_or_false",
    "literal_error": "validation.one_of",
    "string_type": "validation.text",
    "string_too_short": "validation.too_short_text",
    "string_too_long": "validation.too_long_text",
    "list_type": "validation.list",
    "tuple_type": "validation.list",
    "dict_type": "validation.mapping",
    "mapping_type": "validation.mapping",
    "model_type": "validation.mapping",
    "dataclass_type": "validation.mapping",
    "none_required": "validation.nothing",
    "missing": "validation.missing",
    "extra_forbidden": "validation.extra",
    "too_short": "validation.too_short",
    "too_long": "validation.too_long",
}
"""The message that says each of pydantic's kinds of errors."""


def problem_of(error: ErrorDetails) -> Message | str:
    """What is wrong with one value; in pydantic's own words, which are English, where no message says it."""
    context: dict[str, Any] = error.get("ctx", {})
    if error["type"] == "literal_error":
        context = {"expected": context["expected"].replace(" or ", ", ")}
    if isinstance(said := context.get("said"), Message):  # by a check of alphabar's own
        return said
    for key, bound in context.items():
        if isinstance(bound, float) and bound.is_integer():
            context[key] = int(bound)
    kind = PROBLEMS.get(error["type"])
    return message(kind, **context) if kind else error["msg"].lower()


def first_problem(error: ValidationError) -> Message:
    """The first value of a document that does not fit: where it stands, what it is and what is wrong."""
    first = error.errors()[0]
    place, problem = ".".join(map(str, first["loc"])) or "–", problem_of(first)
    if first["type"] == "missing":  # what it would be missing in is no value of it
        return message("validation.without_value", place=place, problem=problem)
    return message("validation.with_value", place=place, value=reprlib.repr(first["input"]), problem=problem)
