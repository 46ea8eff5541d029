"""Operators: the A in y = A(x) + sigma_y·n, one file for each family, listed in `registry`.

Signals are (n, channels, *spatial) in the units of the model's codec: for images [-1, 1], where sigma_y =
0.05 is 6.4 of 255 grey levels. (DPS and DAPS count in the same units. DiffPIR, DDRM and DDNM publish the
standard deviation for images in [0, 1], where the same noise has half the number.)

Most operators are known by their singular value decomposition A = U·S·V*, from which everything else follows
(`base.Spectral`); any other linear operator gets the same by conjugate gradients (`base.Linear`).
"""
