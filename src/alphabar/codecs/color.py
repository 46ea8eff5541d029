"""Colours and grey: the weights of red, green and blue in luminance."""

import torch

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
"""How much red, green and blue count in grey (ITU-R BT.601), as in Pillow, JPEG and OpenCV."""
