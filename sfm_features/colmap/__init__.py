"""COLMAP, seen through our types. The only door to pycolmap.

Pixels are shifted by `PIXEL_CENTRE` here, and nowhere above. Callers see paths, numpy
arrays and our types; no pycolmap object leaves the package.
"""

from __future__ import annotations

from sfm_features.colmap.adding import add_images
from sfm_features.colmap.adjusting import Hold, Moved, adjust_models
from sfm_features.colmap.cameras import (
    CameraOptions,
    CameraSharing,
    check_camera,
    parse_params,
    read_exif_camera,
)
from sfm_features.colmap.database import import_features_and_matches
from sfm_features.colmap.exporting import (
    is_flat,
    transform_model,
    undistort_camera,
    undistort_picture,
    write_text_model,
    write_undistorted_model,
)
from sfm_features.colmap.gps import (
    choose_origin,
    gps_to_local_metres,
    read_gps,
)
from sfm_features.colmap.mapping import MapperName, MapperOptions, run_mapper
from sfm_features.colmap.models import (
    choose_model,
    covisible_counts,
    find_models,
    list_models,
    make_posed_model,
    pick_model,
    read_model,
    write_model,
    write_poses,
)
from sfm_features.colmap.pose import (
    PoseEstimate,
    RelativePose,
    estimate_absolute_pose,
    estimate_relative_pose,
    project_points,
)
from sfm_features.colmap.running import Cancellation, cancel_on_signals
from sfm_features.colmap.snapshots import (
    drop_snapshots,
    find_snapshot,
    refuse_foreign,
)
from sfm_features.colmap.tables import (
    SIFT,
    DatabaseTables,
    StoredImage,
    open_tables,
)
from sfm_features.colmap.triangulation import triangulate_model
from sfm_features.colmap.verification import (
    VerifiedPair,
    VerifyOptions,
    read_verified,
    verify_pairs,
    verify_pairs_by_poses,
)

__all__ = [
    "SIFT",
    "CameraOptions",
    "CameraSharing",
    "Cancellation",
    "DatabaseTables",
    "Hold",
    "MapperName",
    "MapperOptions",
    "Moved",
    "PoseEstimate",
    "RelativePose",
    "StoredImage",
    "VerifiedPair",
    "VerifyOptions",
    "add_images",
    "adjust_models",
    "cancel_on_signals",
    "check_camera",
    "choose_model",
    "choose_origin",
    "covisible_counts",
    "drop_snapshots",
    "estimate_absolute_pose",
    "estimate_relative_pose",
    "find_models",
    "find_snapshot",
    "gps_to_local_metres",
    "import_features_and_matches",
    "is_flat",
    "list_models",
    "make_posed_model",
    "open_tables",
    "parse_params",
    "pick_model",
    "project_points",
    "read_exif_camera",
    "read_gps",
    "read_model",
    "read_verified",
    "refuse_foreign",
    "run_mapper",
    "transform_model",
    "triangulate_model",
    "undistort_camera",
    "undistort_picture",
    "verify_pairs",
    "verify_pairs_by_poses",
    "write_model",
    "write_poses",
    "write_text_model",
    "write_undistorted_model",
]
