"""Generating samples: settings, sampling, interpolation, editing, comparison, and the files of a sampling."""
