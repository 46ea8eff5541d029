"""A data set of small rendered cars, with everything that is known about each picture."""
