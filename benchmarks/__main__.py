"""All measurements, or those that are named, one after the other.

    python -m benchmarks                      # what benchmarks/results holds
    python -m benchmarks throughput --quick   # does it work?

Peers are measured where MILLPOND_INFINITY and MILLPOND_TXTAI name their environments. The machine should have nothing
else to do. Ctrl-C ends the servers too.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import chunking, coldstart, fairness, indexing, quality, scaling, throughput, training
from benchmarks.options import Settings, parser, progress, settings

ALL: Final[Mapping[str, Callable[[Settings], None]]] = {
    "throughput": throughput.run,
    "indexing": indexing.run,
    "quality": quality.run,
    "chunking": chunking.run,
    "training": training.run,
    "fairness": fairness.run,
    "scaling": scaling.run,
    "coldstart": coldstart.run,
}


def main() -> int:
    """1 where one of them failed; the others run all the same."""
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL) + "; all by default")
    given = arguments.parse_args()
    for name in given.names:
        if name not in ALL:
            arguments.error(f"{name!r} is none of {', '.join(ALL)}")
    chosen, failed, began = settings(given), [], time.monotonic()
    for name in given.names or ALL:
        progress(f"== {name}")
        try:
            ALL[name](chosen)
        except Exception:  # whatever went wrong in one, the others have their figures to give
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
