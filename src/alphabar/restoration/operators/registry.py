"""Operators: the A in y = A(x) + sigma_y·n, what was done to a picture before we saw it.

Everything is in the units of signals, [-1, 1]: sigma_y = 0.05 is 6.4 of 255 grey levels. (DPS and DAPS count
so too; DiffPIR, DDRM and DDNM publish the same number for pictures in [0, 1], where it is twice as much.)

Most operators are known by their singular value decomposition A = U·S·V*, from which everything else
follows (`Spectral`); any other linear one gets the same by conjugate gradients (`Linear`).
"""

from alphabar.registry import Registry
from alphabar.restoration.operators.convolution import blur, motion
from alphabar.restoration.operators.jpeg import jpeg
from alphabar.restoration.operators.mask import box, denoise, random, strokes
from alphabar.restoration.operators.separable import average, down, grey

OPERATORS = Registry(
    "degradation",
    {
        "denoise": denoise,
        "box": box,
        "random": random,
        "strokes": strokes,
        "down": down,
        "average": average,
        "blur": blur,
        "motion": motion,
        "grey": grey,
        "jpeg": jpeg,
    },
)
