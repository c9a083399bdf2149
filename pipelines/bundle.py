"""Put trained weights into the package, with figures measured on them in their card.

$ python -m pipelines.bundle run/weights.safetensors evo --figure "castle AUC@5=0.9"

The weights are read as strictly as an extractor reads them. Figures are text, given by
hand: they come from benchmarks that this repository does not hold the images of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sfm_features.errors import SfmError
from sfm_features.nets.weights import BUNDLED, BUNDLED_NETS, load_weights, save_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy weights and card; add what is known about them."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", type=Path, help="a run's weights.safetensors")
    add("name", help=f"what they are to be called: {', '.join(BUNDLED_NETS)}")
    add("--commit", default="", help="what the training was run at")
    add("--sources", default="", help="what the photos are and where they come from")
    add("--figure", metavar="NAME=VALUE", nargs="+", action="extend", default=[])
    add("--folder", type=Path, default=BUNDLED, help="where to put them")
    args = parser.parse_args(arguments)
    try:
        net, card = load_weights(args.weights, BUNDLED_NETS.get(args.name, args.name))
    except SfmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    figures = dict(figure.rsplit("=", 1) for figure in args.figure)
    card = replace(
        card,
        data=f"{card.data}; {args.sources}" if args.sources else card.data,
        commit=args.commit or card.commit,
        metrics={**card.metrics, **{k: float(v) for k, v in figures.items()}},
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    save_weights(net, args.folder / f"{args.name}.safetensors", card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
