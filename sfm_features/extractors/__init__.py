"""Feature extractors, one small file per method."""
