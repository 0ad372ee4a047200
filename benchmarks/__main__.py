"""Run all benchmarks but that of a GPU, or those that are named, one after the other.

    python -m benchmarks                      # rewrite benchmarks/results
    python -m benchmarks throughput --quick   # check that it works

Every table names the processor; `--isa avx2` keeps a newer one to what older ones have. Peers are measured where
MILLPOND_INFINITY, MILLPOND_TXTAI and MILLPOND_STORES name their environments. Run nothing else on the machine
meanwhile. Ctrl-C ends the servers too. TMPDIR says where stores are kept; those of millions take gigabytes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.machine import limit_to_avx2
from benchmarks.report import RESULTS, Report, progress
from service.process import prepare_process

TITLES: Final[Mapping[str, str]] = {
    "throughput": "Throughput, latency and memory over HTTP",
    "soak": "Memory and latency over time",
    "kinds": "Memory and latency of other kinds of model",
    "indexing": "Indexing and search",
    "search": "A million vectors",
    "lean": "Millions of vectors in little memory",
    "filters": "Filtered search",
    "mixed": "Searches beside changes",
    "stores": "Vector stores side by side",
    "retrieval": "Search by vectors, by words and by both",
    "reranking": "Hits re-ranked by late interaction",
    "ranking": "Re-ranking",
    "quality": "Quality",
    "over_milvus": "Search over Milvus",
    "static": "A static model",
    "parity": "Equal to sentence-transformers",
    "chunking": "Late and early chunking",
    "coldstart": "Cold start and memory",
    "http_profile": "The event loop under load",
    "lab": "The lab",
    "queueing": "Replicas under ten times their load",
    "gpu": "A GPU",
}
"""Of the results, by the module that measures them."""


def main() -> int:
    """Run the chosen benchmarks, each whether or not the others fail; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(TITLES)}; all but gpu by default")
    parser.add_argument("--rounds", type=int, help="rounds to take the median of: 3, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="use small samples and write to quick/ in the folder")
    parser.add_argument(
        "--isa", choices=["avx2"], help="the most that libraries and servers may use of the processor"
    )
    parser.add_argument("--vectors", type=int, help="how many to store, where vectors are; each has its own default")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="for the results; default: benchmarks/results")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in TITLES]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(TITLES)}")
    rounds = max(1, given.rounds or (1 if given.quick else 3))
    folder = given.folder / "quick" if given.quick else given.folder
    options = [
        word for name in ("isa", "vectors") if (value := vars(given)[name]) for word in (f"--{name}", f"{value}")
    ]
    if given.isa:  # before anything is loaded that would look at the processor
        progress(limit_to_avx2())
    prepare_process()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed, began = [], time.monotonic()
    for name in given.names or (name for name in TITLES if name != "gpu"):
        progress(f"== {name}")
        report = Report(
            name,
            TITLES[name],
            rounds=rounds,
            quick=given.quick,
            folder=folder,
            options=options,
            vectors=given.vectors,
        )
        try:
            import_module(f"benchmarks.{name}").run(report)
            report.write()
        except Exception:  # the remaining benchmarks can still run
            traceback.print_exc()
            failed.append(name)
        progress(f"== {name}: {time.monotonic() - began:.0f} s so far")
    if failed:
        progress(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
