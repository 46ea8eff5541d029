"""The parts of benchmarks/crash_safety.py."""
