"""ALIKED, DISK, XFeat, DeDoDe and Key.Net + HardNet through kornia.

The package ships no weights of these networks. Each class says what kornia's network
wants and how its keypoints become our pixels.
"""

from __future__ import annotations

from typing import Any

import kornia.color
import kornia.feature
from kornia.core.download import hf_url
from kornia.feature import hardnet, keynet, orientation
from kornia.feature.dedode import dedode, utils
from kornia.feature.disk import disk
from torch import Tensor

from sfm_features.extractors.kornia_base import Found, KorniaExtractor
from sfm_features.extractors.kornia_weights import Part
from sfm_features.types import PIXEL_CENTRE


class Aliked(KorniaExtractor):
    """ALIKED, model n16: sub-pixel keypoints, descriptors of 128."""

    method = "aliked"
    parts = (
        Part(
            module="",
            file_name="aliked-n16.pth",
            urls=(
                hf_url("aliked", "aliked-n16.pth"),
                "https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
            ),
            constants=("dkd.hw_grid",),
        ),
    )

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return int(self._net.desc_head.agg_weights.shape[-1])

    def _make_net(self) -> Any:
        return kornia.feature.ALIKED(
            "aliked-n16", max_num_keypoints=self._max_keypoints
        )

    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        # It pads for itself, and its pixels are ours: centres are whole numbers.
        return [
            (f.keypoints, f.descriptors, f.keypoint_scores) for f in self._net(batch)
        ]


class Disk(KorniaExtractor):
    """DISK trained on depth: whole-pixel keypoints, descriptors of 128."""

    method = "disk"
    parts = (Part(module="", file_name="depth-save.pth", urls=disk.urls["depth"]),)
    multiple_px = 16
    smallest_side_px = 32  # the instance norms of the U-Net want more than one pixel

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return int(self._net.desc_dim)

    def _make_net(self) -> Any:
        return kornia.feature.DISK()

    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        # All maxima are asked for, since some of the best may lie in the padding.
        found = self._net(batch, n=None)
        return [(f.keypoints, f.descriptors, f.detection_scores) for f in found]


class XFeat(KorniaExtractor):
    """XFeat, sparse: whole-pixel keypoints, descriptors of 64."""

    method = "xfeat"
    parts = (
        Part(
            module="net",
            file_name="xfeat.pt",
            urls=(kornia.feature.XFeat.weights_url,),
        ),
    )
    # kornia would shrink other sizes and shift the keypoints by up to half a pixel.
    multiple_px = 32
    smallest_side_px = 32

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return int(self._net.net.block_fusion[-1].out_channels)

    def _make_net(self) -> Any:
        return kornia.feature.XFeat()

    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        # All maxima are asked for, since some of the best may lie in the padding.
        every_pixel = batch.shape[-1] * batch.shape[-2]
        found = self._net.detectAndCompute(batch, top_k=every_pixel)
        return [(f["keypoints"], f["descriptors"], f["scores"]) for f in found]


class DeDoDe(KorniaExtractor):
    """DeDoDe, detector L v2 and descriptor B: whole pixels, descriptors of 256."""

    method = "dedode"
    parts = (
        Part(
            module="detector",
            file_name="dedode_detector_L_v2.pth",
            urls=dedode.urls["detector"]["L-C4-v2"],
        ),
        Part(
            module="descriptor",
            file_name="dedode_descriptor_B.pth",
            urls=dedode.urls["descriptor"]["B-upright"],
        ),
    )
    multiple_px = 14
    smallest_side_px = 28

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return int(self._net.descriptor.decoder.num_prototypes)

    def _make_net(self) -> Any:
        return kornia.feature.DeDoDe("L", "B")

    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        size: dict[str, Any] = {
            "crop_h": height,
            "crop_w": width,
            "pad_if_not_divisible": False,
        }
        normalized, scores = self._net.detect(batch, n=self._max_keypoints, **size)
        descriptors = self._net.describe(batch, normalized, **size)
        # It counts from -1 at the outer edge of the first pixel to 1 at that of the
        # last, always on the middle of a pixel; that much is lost to rounding.
        xy = utils.dedode_denormalize_pixel_coordinates(normalized, height, width)
        xy = (xy - PIXEL_CENTRE).round()
        return list(zip(xy, descriptors, scores, strict=True))


class KeyNetHardNet(KorniaExtractor):
    """Key.Net over a pyramid, OriNet and HardNet: oriented, descriptors of 128."""

    method = "keynet"
    parts = (
        Part("detector.model", "keynet_pytorch.pth", keynet.KeyNet_URL),
        Part("detector.ori.angle_detector", "OriNet.pth", orientation.urls["orinet"]),
        Part(
            "descriptor.descriptor",
            "checkpoint_liberty_with_aug.pth",
            hardnet.urls["liberty_aug"],
        ),
    )
    # Smaller images lie within the border that the detector leaves out on every level,
    # and its pyramid cannot be built.
    _smallest_with_keypoints_px = 22

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return int(self._net.descriptor.descriptor.features[-1].num_features)

    def _make_net(self) -> Any:
        detector = kornia.feature.KeyNetDetector(
            pretrained=False,
            num_features=self._max_keypoints,
            ori_module=kornia.feature.LAFOrienter(
                angle_detector=kornia.feature.OriNet(pretrained=False)
            ),
        )
        descriptor = kornia.feature.LAFDescriptor(
            kornia.feature.HardNet(pretrained=False)
        )
        return kornia.feature.LocalFeature(detector, descriptor)

    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        if min(height, width) < self._smallest_with_keypoints_px:
            shapes = (0, 2), (0, self.descriptor_dim), (0,)
            nothing = tuple(batch.new_zeros(shape) for shape in shapes)
            return [(nothing[0], nothing[1], nothing[2])] * len(batch)
        grey = kornia.color.rgb_to_grayscale(batch)
        return [self._detect_one(image[None]) for image in grey]

    def _detect_one(self, grey: Tensor) -> Found:
        """Run the network, which takes one image at a time, on (1, 1, H, W)."""
        frames, responses, descriptors = self._net(grey)
        filled = kornia.feature.laf_is_filled(frames)
        frames = frames[filled][None]
        # kornia multiplies a level's pixel by the level's step, which leaves out that
        # the level's first pixel is centred half a step, not half a pixel, from the
        # edge. The step is in the frame's size.
        size = kornia.feature.get_laf_scale(frames)[0, :, :, 0]
        shift = (size / self._net.detector.mr_size - 1) * PIXEL_CENTRE
        xy = kornia.feature.get_laf_center(frames)[0] + shift
        return xy, descriptors[filled], responses[filled]
