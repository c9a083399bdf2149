"""Every name in the tables leads to a method that keeps the contract."""

from __future__ import annotations

import inspect
from importlib import import_module

import numpy as np
import pytest
from samples import make_features

from sfm_features.errors import OptionError, WeightsError
from sfm_features.registry import (
    DEFAULT_RATIO,
    EXTRACTORS,
    MATCHERS,
    WITH_SCALES,
    build_extractor,
    build_matcher,
    choose_device,
    hash_weights,
)
from sfm_features.types import Extractor, Matcher

KEYWORDS = {"max_keypoints", "device", "seed", "weights", "download"}
WITHOUT_WEIGHTS = [name for name in EXTRACTORS if not hash_weights(name, None)]


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_extractors_take_the_same_keywords(name: str) -> None:
    module, _, attribute = EXTRACTORS[name].partition(":")
    method = getattr(import_module(module), attribute)
    assert Extractor in method.__mro__
    parameters = inspect.signature(method).parameters
    own = {"scales"} if name in WITH_SCALES else set()
    assert set(parameters) == KEYWORDS | own
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", sorted(set(WITHOUT_WEIGHTS) - {"sift"}))
def test_methods_without_weights_say_where_to_find_them(name: str) -> None:
    with pytest.raises(WeightsError, match=r"--weights.*--download"):
        build_extractor(name, max_keypoints=10, device="cpu")


@pytest.mark.parametrize("name", sorted(MATCHERS))
def test_matchers_keep_the_contract(name: str) -> None:
    matcher = build_matcher(name, device="cpu", ratio=1.0)
    assert Matcher in type(matcher).__mro__
    a, b = (make_features(30, 16, seed) for seed in range(2))
    together = matcher.match_many(a, [a, b])
    alone = [matcher.match(a, a), matcher.match(a, b)]
    for x, y in zip(together, alone, strict=True):
        assert (x.indices == y.indices).all() and (x.scores == y.scores).all()
        assert (x.indices < 30).all() and x.indices.dtype == np.int32
    assert (together[0].indices == np.arange(30)[:, None]).all()


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(OptionError, match=r"'sfit' \(did you mean 'sift'\?\).*aliked"):
        build_extractor("sfit", max_keypoints=10)
    with pytest.raises(OptionError, match=r"--device nonsense: cannot be used"):
        choose_device("nonsense")
    assert set(DEFAULT_RATIO) <= set(EXTRACTORS)


def test_scales_are_for_those_that_take_them() -> None:
    with pytest.raises(
        OptionError,
        match=r"--scales: sift has its own; .* evo, evo-fine, evo-object, sekd",
    ):
        build_extractor("sift", max_keypoints=10, scales=[1.0])


def test_who_uses_the_weights_of_another_is_told_by_them() -> None:
    assert hash_weights("evo-fine", None) == hash_weights("evo", None) != ""
