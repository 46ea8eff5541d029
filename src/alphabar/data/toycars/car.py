"""One toy car: the attributes and numbers that decide its picture."""

from dataclasses import dataclass

from alphabar.data.toycars.catalog import BACKGROUND_PHRASES, TIMES, VALUES, VIEWS
from alphabar.errors import unknown


@dataclass(frozen=True)
class Car:
    """Everything that decides a picture.

    turn: degrees added to the view's angle. scale: 1 fills the frame well. shift: of the car's middle, in
    frame widths. scenery: the seed of what is accidental in the background.
    """

    body: str
    color: str
    view: str
    background: str
    time: str
    turn: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    scenery: int = 0

    def __post_init__(self) -> None:
        for attribute, known in VALUES.items():
            if getattr(self, attribute) not in known:
                raise unknown(attribute, getattr(self, attribute), known)

    @property
    def azimuth(self) -> float:
        """Where the camera stands, in degrees from the nose towards the car's left side, in [0, 360)."""
        return (VIEWS[self.view] + self.turn) % 360

    @property
    def caption(self) -> str:
        """One English phrase, such as "a red pickup seen from the left in the desert at night"."""
        article = "an" if self.color[0] in "aeiou" else "a"
        place, time = BACKGROUND_PHRASES[self.background], TIMES[self.time].phrase
        return f"{article} {self.color} {self.body} seen from the {self.view} {place} {time}"
