"""Restoration with a denoiser that was trained for generation only: degradation operators and solvers."""
