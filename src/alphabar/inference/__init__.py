"""How a trained network computes: what is fastest on this machine, checked against float32, and remembered."""
