"""What benchmarks share: the chain of stages, file formats, measures and tables."""
