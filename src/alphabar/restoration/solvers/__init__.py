"""Solvers of inverse problems: samplers that also know y = A(x0) + sigma_y·n, in terms of the denoiser alone.

Most of them are one loop (`base.DDIMSolver.solve`) with the step of DDIM (Song et al. 2021, eq. 12) and the
estimate xhat, which y has a say in, in the place of the denoised sample D:

    x_s = alpha_s·xhat + sqrt(sigma_s² - c²)·(x_t - alpha_t·xhat)/sigma_t + c·z

They differ in xhat (`estimate`) and in c, the share of fresh noise (`churn`). In their formulas z_t =
x_t/alpha_t and sigma = sigma_t/alpha_t, so that z_t = x0 + sigma·eps whatever the schedule, and J =
dD/dz_t.
"""
