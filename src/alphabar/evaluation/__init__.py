"""Evaluating samples against real data in four stages: samples, distances, copies, attributes."""
