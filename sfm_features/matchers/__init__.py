"""Feature matchers, one small file per method."""
