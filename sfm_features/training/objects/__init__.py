"""Keypoints of a kind of object from unlabelled pictures of it, with or without depth."""
