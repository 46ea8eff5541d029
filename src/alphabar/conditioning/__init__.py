"""What a model is conditioned on: the fields of its condition, and labels turned into rows of numbers."""
