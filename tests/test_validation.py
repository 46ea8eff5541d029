"""What is wrong with a setting is said in the language of the reader."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from alphabar.errors import UsageError
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.registry import Registry
from alphabar.sampling.settings import SamplingSettings
from alphabar.validation import PROBLEMS, first_problem

WRONG = [
    (Annotated[int, Field(gt=1)], 1, "debe ser mayor que 1"),
    (Annotated[int, Field(ge=1)], 0, "debe ser como mínimo 1"),
    (Annotated[int, Field(lt=1)], 1, "debe ser menor que 1"),
    (Annotated[float, Field(le=1)], float("inf"), "debe ser como máximo 1"),
    (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "debe ser un número finito"),
    (int, "many", "debe ser un número entero"),
    (int, 1.5, "debe ser un número entero"),
    (float, "much", "debe ser un número"),
    (bool, "perhaps", "debe ser true o false"),
    (str, 1, "debe ser un texto"),
    (tuple[int, ...], 1, "debe ser una lista"),
    (tuple[int, int], [1, 2, 3], "como máximo 2 elementos"),
    (dict[str, int], 1, "deben ser claves"),
    (Literal["a", "b"], "c", "debe ser uno de 'a', 'b'"),
]


@pytest.mark.parametrize(("hint", "value", "said"), WRONG, ids=lambda each: str(each)[:40])
def test_the_problem_is_said_in_spanish(hint, value, said):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(hint).validate_python(value)
    spanish = first_problem(error.value).in_language("es")
    assert said in spanish and "nput" not in spanish and " or " not in spanish


def test_an_unknown_problem_keeps_its_words():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(bytes).validate_python(3)
    assert "bytes_type" not in PROBLEMS and "bytes" in first_problem(error.value)


def toss(*, eta: Annotated[float, Field(le=1)] = 0.0) -> Any: ...


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Registry("sampler", {"toss": toss}).resolve({"name": "toss", "eta": float("inf")}),
        lambda: with_settings(named_recipe("lean"), ["batch=0"]),
        lambda: with_settings(named_recipe("lean"), ["optimizer.name=sgd"]),
        lambda: SamplingSettings.from_dict({"seed": 0, "steps": "many"}),
    ],
)
def test_so_is_the_sentence_that_a_person_reads(wrong):
    with pytest.raises(UsageError) as error:
        wrong()
    spanish = error.value.in_language("es")
    assert "nput should" not in spanish and "validation error" not in spanish and " or " not in spanish
