"""Confidence intervals of shares."""

import math

Z95 = 1.959963984540054
"""Standard errors to each side of a 95 % interval."""


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share of which count of n ≥ 1 were seen (Wilson 1927); honest near 0 and 1 too."""
    p = count / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)
