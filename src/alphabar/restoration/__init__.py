"""Restoration with a denoiser that was trained for generation only: operators, solvers, files.

`restore.restore` works on signals of any size; `task` reads images from files, with the degradation that a
person names (`degradation`), and writes the restored ones with everything of the file that can be kept
(`photo`).
"""
