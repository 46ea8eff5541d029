"""The mathematics of diffusion, of tensors of any rank. It knows no network, file or data set."""
