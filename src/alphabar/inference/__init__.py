"""How a trained network computes: what is fastest here, checked against float32, and remembered."""
