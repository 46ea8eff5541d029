"""How good samples are: distances from real data, copies of training data, attributes, colors."""
