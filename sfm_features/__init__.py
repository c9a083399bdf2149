"""Local features, matching, reconstruction and localization around COLMAP."""

__version__ = "0.1.0"
