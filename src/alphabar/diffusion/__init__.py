"""The mathematics of diffusion: it knows tensors, and no network, file or data set."""
