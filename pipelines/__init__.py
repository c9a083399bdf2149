"""Runnable stories around the package: benchmarks. Not part of the wheel."""
