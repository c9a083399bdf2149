"""Networks that detect and describe, their decoder and their weights files."""
