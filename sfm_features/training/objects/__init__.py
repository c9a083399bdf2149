"""Keypoints of a kind of object from unlabelled pictures, with or without depth."""
