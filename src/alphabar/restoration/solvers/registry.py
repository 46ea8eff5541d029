"""The solvers by name."""

from alphabar.registry import Registry
from alphabar.restoration.solvers.ddnm import DDNM
from alphabar.restoration.solvers.ddrm import DDRM
from alphabar.restoration.solvers.diffpir import DiffPIR
from alphabar.restoration.solvers.direct import Direct
from alphabar.restoration.solvers.dps import DPS
from alphabar.restoration.solvers.mmps import MMPS
from alphabar.restoration.solvers.perturb_and_map import PerturbAndMAP
from alphabar.restoration.solvers.pigdm import PiGDM

SOLVERS = Registry(
    "solver",
    {
        "ddnm": DDNM,
        "ddrm": DDRM,
        "diffpir": DiffPIR,
        "pigdm": PiGDM,
        "mmps": MMPS,
        "perturb_and_map": PerturbAndMAP,
        "dps": DPS,
        "direct": Direct,
    },
)
"""Name → a `Solver` class."""
