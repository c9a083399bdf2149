"""From what is asked of training and adapting to the settings of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sfm_features.nets.dense import DenseNet
from sfm_features.training.averaging import hash_weights
from sfm_features.training.data import DataOptions
from sfm_features.training.embeddings import Distillation
from sfm_features.training.ensemble import Teacher
from sfm_features.training.evolve import plan_stages, plan_taught
from sfm_features.training.labels import LabelKind, LabelOptions
from sfm_features.training.layers import LayerRanges
from sfm_features.training.objective import LossWeights
from sfm_features.training.options import AdaptOptions, DepthOptions, TrainOptions
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.photometric import LightRanges
from sfm_features.training.settings import Settings
from sfm_features.training.warps import WarpRanges

_MILD = WarpRanges(
    scale=(0.75, 1.33),
    rotation_sigma_deg=12.0,
    any_rotation_share=0.05,
    stretch_sigma=0.1,
)
"""How far photos of one place differ, taken upright: what stronger warps teach beyond
that, such photos do not ask for."""


def plan_training(
    options: TrainOptions,
    depth: DepthOptions,
    start: DenseNet | None,
    teachers: Sequence[Teacher] = (),
) -> Settings:
    """Return the settings of `train`, from trained weights if there are any."""
    switches = options.switches()
    # Trained weights choose better keypoints than corners from the first round on.
    first: LabelKind = "product" if start else options.first_labels
    stages = plan_stages(options.recipe, options.rounds, switches, first)
    if teachers:
        stages = plan_taught()
    views = options.views if options.affine_adaption else 1
    return Settings(
        stages=tuple(stages),
        start=hash_weights(start.state_dict()) if start else "",
        steps=options.steps,
        minutes=0.0 if options.steps else options.minutes,
        learning_rate=options.learning_rate,
        average=options.average,
        data=DataOptions(
            batch=options.batch,
            crop_px=options.crop_px,
            points=options.points,
            aligned_share=options.aligned_share,
            town_share=options.town_share,
            turntable_share=depth.turntable_share,
            track_share=options.track_share,
            light=LightRanges(night_share=options.night_share),
            layers=LayerRanges(share=options.layer_share),
        ),
        labels=LabelOptions(views=views, density=options.density),
        multiview=options.multiview is not None,
        label_photos=options.label_photos,
        switches=switches,
        weights=LossWeights(background=depth.background_weight),
        distillation=make_distillation(depth),
        descriptor_loss=options.descriptor_loss,
        pg2sd=Pg2sdOptions(options.strategy),
        validations=options.validations,
        checkpoint_steps=options.checkpoint_steps,
        workers=options.workers,
        start_share=options.start_share,
        whiten=options.whiten,
        teachers=tuple(
            f"{one.votes} x {one.name} {hash_weights(one.net.state_dict())}"
            for one in teachers
        ),
    )


def plan_adapting(
    options: AdaptOptions, depth: DepthOptions, start: DenseNet
) -> Settings:
    """Return the settings of `adapt`."""
    return Settings(
        stages=tuple(plan_stages("joint", options.rounds, first="product")),
        start=hash_weights(start.state_dict()),
        steps=options.steps,
        minutes=0.0 if options.steps else options.minutes,
        learning_rate=options.learning_rate,
        average=0.99,
        data=DataOptions(
            batch=options.batch,
            crop_px=options.crop_px,
            warps=_MILD if options.warps == "mild" else WarpRanges(),
            one_place=True,
            replay_share=options.replay_share,
            turntable_share=depth.turntable_share,
            track_share=options.track_share,
            light=LightRanges(night_share=options.night_share),
            layers=LayerRanges(share=options.layer_share),
        ),
        labels=LabelOptions(views=options.views),
        multiview=options.multiview,
        label_photos=options.label_photos,
        weights=LossWeights(background=depth.background_weight),
        distillation=make_distillation(depth),
        pg2sd=Pg2sdOptions(options.strategy),
        validations=options.validations,
        checkpoint_steps=100,
        workers=options.workers,
        # Who asks for fewer keypoints cannot be told by matches which weights are best.
        keep_best=depth.depth is None and depth.turntables == 0,
    )


def make_distillation(depth: DepthOptions) -> Distillation:
    """Return what a teacher that sees depth is asked for."""
    return Distillation(depth.distillation, depth.taps, depth.teacher_steps)
