"""What a model may be asked for: the fields of its condition, and requests turned into rows of numbers."""
