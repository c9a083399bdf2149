"""Make the codebook by which whole images are described.

$ python -m pipelines.codebook photos more-photos --output vlad-evo.safetensors
$ python -m pipelines.codebook photos --weights run/weights.safetensors --output mine
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sfm_features.errors import SfmError
from sfm_features.training.codebook import train_codebook
from sfm_features.types import RunOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract, fit, write."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.codebook",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="+", help="folders of photographs")
    add("--output", type=Path, required=True, help="file to write, with its card")
    add("--extractor", default="evo", help="whose features")
    add("--weights", type=Path, help="its weights, if not those of the package")
    add("--words", type=int, default=32, help="typical descriptors")
    add("--dim", type=int, default=512, help="length of an image's descriptor")
    add("--most-photos", type=int, default=8000, help="use so many of them; 0 = all")
    add("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    try:
        train_codebook(
            args.photos, args.output, args.extractor, args.weights,
            args.words, args.dim, args.most_photos, RunOptions(seed=args.seed),
        )  # fmt: skip
    except SfmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
