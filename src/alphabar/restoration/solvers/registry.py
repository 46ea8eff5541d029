"""Posterior solvers: samplers that also know y = A(x0) + sigma_y·n, in terms of the denoiser alone.

All but DDRM are one walk with the same step, that of DDIM (Song et al. 2021, eq. 12) with xhat in the
place of the denoised picture D:

    x_s = alpha_s·xhat + sqrt(sigma_s² - c²)·(x_t - alpha_t·xhat)/sigma_t + c·z

and differ in xhat, which y has had its say in. Inside, z_t = x_t/alpha_t and sigma = sigma_t/alpha_t, so that
z_t = x0 + sigma·eps whatever the schedule, and J = dD/dz_t.
"""

from alphabar.registry import Registry
from alphabar.restoration.solvers.ddnm import ddnm
from alphabar.restoration.solvers.ddrm import ddrm
from alphabar.restoration.solvers.diffpir import diffpir
from alphabar.restoration.solvers.direct import direct
from alphabar.restoration.solvers.dps import dps
from alphabar.restoration.solvers.mmps import mmps
from alphabar.restoration.solvers.perturb_and_map import perturb_and_map
from alphabar.restoration.solvers.pigdm import pigdm

SOLVERS = Registry(
    "solver",
    {
        "ddnm": ddnm,
        "ddrm": ddrm,
        "diffpir": diffpir,
        "pigdm": pigdm,
        "mmps": mmps,
        "perturb_and_map": perturb_and_map,
        "dps": dps,
        "direct": direct,
    },
)
