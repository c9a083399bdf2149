"""Localize InLoc's photographs of a telephone in two buildings that were scanned.

$ python -m pipelines.inloc inloc --output inloc-out
$ python -m pipelines.inloc inloc --output inloc-out --pairs pairs-query-netvlad40.txt

Download cutouts, alignments and queries (visuallocalization.net/datasets, InLoc) and
unpack them into one folder. The layout:

  inloc/database/cutouts/{DUC1,DUC2,...}/<scan>/*.jpg, and *.jpg.mat beside each
  inloc/database/alignments/<building>/transformations/*_trans_<scan>.txt
  inloc/query/iphone7/*.JPG

There is no model: matches with the cutouts most like a query become points by the scan.
InLoc_eval.txt is the file for the server, which alone knows the true poses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

from pipelines.benchmarks.results import Result, Row
from pipelines.protocols.command import run_command
from pipelines.protocols.ledger import Figures, Ledger
from pipelines.protocols.pairwise import (
    Setup,
    describe_setup,
    make_pairs_parser,
    read_setup,
)
from pipelines.protocols.published_pairs import INLOC
from pipelines.protocols.scans import (
    CUTOUTS,
    Scans,
    estimate_pose,
    make_camera,
    to_figures,
    to_located,
)
from pipelines.protocols.submission import refuse_equal_names, write_submission
from sfm_features.errors import InputError
from sfm_features.extract import extract
from sfm_features.match import match
from sfm_features.photo_files import list_images, read_lines
from sfm_features.ranking import rank_images
from sfm_features.retrieve import describe
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.workspace import digest

_MODULE = "pipelines.inloc"
_QUERIES = "query"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_pairs_parser(_MODULE, __doc__, 4096, 1600)
    add = parser.add_argument
    add("--pairs", type=Path, help="text file `query cutout`, instead of retrieval")
    add("--codebook", type=Path, help="for retrieval with features other than evo's")
    add("--retrieval", type=int, default=40, help="cutouts for each query")
    add("--least-matches", type=int, default=20, help="with a cutout, or it is left")
    add("--max-error-px", type=float, default=48.0, help="bound on inliers")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Retrieve, match, look points up, and estimate poses."""
    setup, dataset = read_setup(args), args.dataset
    args.output.mkdir(parents=True, exist_ok=True)
    queries = _list(dataset, _QUERIES)
    refuse_equal_names(queries)
    cutouts = _choose_cutouts(args, setup, queries)
    features, matches = args.output / "features.h5", args.output / "matches.h5"
    pairs = [(query, cutout) for query in queries for cutout in cutouts[query]]
    names = sorted({*queries, *(cutout for _, cutout in pairs)})
    extract(dataset, features, setup.extraction, setup.run, names=names)
    match(features, pairs, matches, setup.matching, setup.run)
    rules = f"{args.max_error_px:g} px, {args.least_matches} matches, {digest(pairs)}"
    ledger = Ledger(args.output / "poses.jsonl", describe_setup(rules, setup))
    missing = [query for query in queries if query not in ledger]
    with FeatureStore.open(features) as found, MatchStore.open(matches) as matched:
        scans = Scans(dataset, found, matched, args.least_matches)
        for query in tqdm(missing, desc="localize", unit="query", disable=not missing):
            seen = scans.gather(query, cutouts[query])
            camera = make_camera(found.read_size(query))
            best = estimate_pose(seen, camera, args.max_error_px, args.seed)
            ledger.add(query, to_figures(best))
    return {"inloc": _publish(args, {query: ledger[query] for query in queries})}


def _list(dataset: Path, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in list_images(dataset / folder)]


def _choose_cutouts(
    args: argparse.Namespace, setup: Setup, queries: Sequence[str]
) -> dict[str, list[str]]:
    """List the cutouts that each query is matched with, best first."""
    if args.pairs is not None:
        chosen: dict[str, list[str]] = {query: [] for query in queries}
        for line in read_lines(args.pairs):
            query, _, cutout = line.partition(" ")
            if query not in chosen or not (args.dataset / cutout).is_file():
                raise InputError(
                    f"{args.pairs}: {line!r} is not `query cutout` of files in "
                    f"{args.dataset}; check the names"
                )
            chosen[query].append(cutout)
        return chosen
    database = _list(args.dataset, CUTOUTS)
    features, described = args.output / "features.h5", args.output / "global.h5"
    extract(
        args.dataset, features, setup.extraction, setup.run, names=[*queries, *database]
    )
    describe(features, described, args.codebook)
    rankings = rank_images(described, queries, database, args.retrieval)
    return {ranking.query: list(ranking.names) for ranking in rankings}


def _publish(args: argparse.Namespace, figures: Mapping[str, Figures]) -> Result:
    located = {query: to_located(found) for query, found in figures.items()}
    path = args.output / "InLoc_eval.txt"
    write_submission(path, located)
    inliers = [found["inliers"] for found in figures.values()]
    ours: Row = {
        "method": args.extractor,
        "source": "this run",
        "queries": len(figures),
        "with a pose": sum(one.pose is not None for one in located.values()),
        "median inliers": median(inliers),
        "DUC1": "the server tells",
        "DUC2": "the server tells",
    }
    title = "InLoc: % within 0.25 / 0.5 / 1 m and 10 degrees"
    return Result(title, [ours, *INLOC])


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
