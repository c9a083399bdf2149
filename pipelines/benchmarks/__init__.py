"""What `python -m pipelines.benchmark` measures, a file per subject."""
