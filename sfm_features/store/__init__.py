"""hloc's HDF5 layout, written so that a kill loses nothing. The only door to h5py.

Features: one group per image name with `keypoints` (N, 2) f32, `descriptors` (D, N)
f16, `scores` (N,) f32, `image_size` (2,) i64. Matches: one group per pair at
`match_key`, with `matches0` (N0,) i32 (-1 = none) and `matching_scores0` (N0,) f16.
Whole images: one group per image name with `global_descriptor` (D,) f16. In a file of
ours a group counts when its `complete` attribute, written last, is there; in anybody
else's file when it has its datasets. deep-image-matching has an array (K, 2) of indices
where hloc has a pair's group; that is read, too.
"""

from __future__ import annotations

from sfm_features.store.base import NamedStore, refuse_nested
from sfm_features.store.features import FeatureStore, Origin
from sfm_features.store.foreign import read_arrays
from sfm_features.store.globals import GlobalStore
from sfm_features.store.kinds import AnyStore, open_any
from sfm_features.store.matches import MatchStore, match_key, refuse_collisions

__all__ = [
    "AnyStore",
    "FeatureStore",
    "GlobalStore",
    "MatchStore",
    "NamedStore",
    "Origin",
    "match_key",
    "open_any",
    "read_arrays",
    "refuse_collisions",
    "refuse_nested",
]
