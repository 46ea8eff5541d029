"""Constants of color."""

import torch

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
"""The weights of red, green and blue in luma (Rec. ITU-R BT.601)."""
