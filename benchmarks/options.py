"""What a benchmark is told on its command line."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Settings:
    """How long to measure, and where the results go."""

    rounds: int = 3
    quick: bool = False
    wrk: bool = False
    results: Path = RESULTS

    def some(self, full: int, quick: int) -> int:
        """A size: `full` for figures to keep, `quick` to try whether everything works."""
        return quick if self.quick else full

    @property
    def flags(self) -> str:
        """The flags that ask for this."""
        return " ".join(
            [*(["--quick"] if self.quick else []), f"--rounds {self.rounds}", *(["--wrk"] if self.wrk else [])]
        )


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark knows."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=_count, help="rounds, of which the median is kept: 3, with --quick 1")
    found.add_argument("--quick", action="store_true", help="small samples, to try it; written to results/quick")
    found.add_argument("--wrk", action="store_true", help="check throughput with wrk too, where it is installed")
    found.add_argument("--results", type=Path, help="the folder to write to")
    return found


def settings(arguments: argparse.Namespace) -> Settings:
    """The settings that parsed flags come to. A first SIGTERM then ends the benchmark as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    return Settings(
        rounds=arguments.rounds or (1 if arguments.quick else 3),
        quick=arguments.quick,
        wrk=arguments.wrk,
        results=arguments.results or (RESULTS / "quick" if arguments.quick else RESULTS),
    )


def from_command_line(description: str | None) -> Settings:
    """The settings of a benchmark that runs alone."""
    return settings(parser(description).parse_args())


def progress(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few; at least 1")
    return value


def _interrupt(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what follows is ending the servers; let it
    raise KeyboardInterrupt
