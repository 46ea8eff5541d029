import pytest

from alphabar.errors import UsageError
from alphabar.registry import Registry


class Ball:
    def __init__(self, *, radius: float, colour: str = "red", bounces: tuple[int, ...] = (1, 2)):
        self.radius, self.colour, self.bounces = radius, colour, bounces


def throw(ball: Ball, *, speed: float = 1.0) -> float:
    return ball.radius * speed


REGISTRY = Registry("toy", {"ball": Ball, "throw": throw, "rest": lambda ball: 0.0})


def test_resolve_fills_in_and_converts():
    assert REGISTRY.resolve({"name": "ball", "bounces": [3]}) == {
        "name": "ball",
        "colour": "red",
        "bounces": (3,),
    }


def test_a_spec_may_be_text():
    assert REGISTRY.resolve('{"name": "throw", "speed": 2}') == {"name": "throw", "speed": 2.0}


def test_build_gives_context_and_settings():
    ball = REGISTRY.build({"name": "ball", "colour": "blue"}, radius=2.0)
    assert (ball.radius, ball.colour) == (2.0, "blue")
    assert REGISTRY.build({"name": "throw", "speed": 3})(ball) == 6.0


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("bal", "unknown toy 'bal': did you mean 'ball'?"),
        ({"name": "ball", "color": 1}, "did you mean 'colour'?"),
        ({"name": "ball", "radius": 1}, "unknown setting of toy 'ball' 'radius'"),
        ({"name": "throw", "speed": "fast"}, "toy.speed = 'fast'"),
        ({"name": "rest", "speed": 1}, "the toy 'rest' has no settings: leave out 'speed'"),
        ({"speed": 1}, "has no name"),
        ('{"name": throw}', 'the toy {"name": throw} is not valid JSON'),
    ],
)
def test_mistakes_are_named(spec, told):
    with pytest.raises(UsageError) as error:
        REGISTRY.resolve(spec)
    assert told in str(error.value)
