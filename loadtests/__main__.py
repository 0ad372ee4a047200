"""Load a service with each scenario in turn, and report.

    python -m loadtests
    python -m loadtests --config configs/cls.yaml --seconds 60 --scenario search --users 32
    python -m loadtests --url http://127.0.0.1:8000

Exits with 0 where every request was answered well, 1 where one was not, and 130 after Ctrl-C, which ends the
service and still reports what was measured.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from loadtests import report
from loadtests.deployment import ServiceFailed, cranfield, running, started
from loadtests.run import Run
from loadtests.sampler import Sampler
from loadtests.scenarios import SCENARIOS, Scenario
from tests.support import datasets
from tests.support.servers import ROOT, NotStarted

INTERRUPTED: Final = 130


def main() -> int:
    """Run what the command line asks for; gives the exit status."""
    options = _options()
    scenarios = [scenario for name, scenario in SCENARIOS.items() if name in options.scenario]
    _require_data(scenarios)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="millpond-loadtest-") as folder:
        measured = _measure(options, scenarios, Path(folder))
    if measured is None:
        return 1
    path = report.write(measured, options.report)
    print(path.read_text(encoding="utf-8").split("\n## ")[1].partition("\n")[2].strip())
    for problem in measured.problems:
        _say(problem)
    _say(f"The report is {path}.")
    if measured.interrupted:
        return INTERRUPTED
    return int(measured.failed)


def _measure(options: argparse.Namespace, scenarios: Sequence[Scenario], folder: Path) -> report.Measured | None:
    """Run the scenarios one after another; None where there was no service to load."""
    deployment = running(options.url) if options.url else started(options.config, folder)
    measured = None
    try:
        with deployment as service:
            facts = service.facts()
            measured = report.Measured(_command(options), facts, local=service.pid is not None)
            _say(f"{facts.summary}, at {service.url}")
            with Sampler(service.pid) as sampler, ExitStack() as stack:
                measured.samples = sampler.samples
                collection = ""
                for scenario in scenarios:
                    if scenario.searches and not collection:
                        _say("indexing Cranfield")
                        collection = stack.enter_context(cranfield(service))
                    run = Run(scenario, options.users or scenario.users, options.seconds)
                    measured.runs.append(run)
                    run.execute(service, facts, collection, sampler, folder)
                    service.require_alive()
    except (ServiceFailed, NotStarted, httpx.HTTPError) as error:
        if measured is None:
            _say(str(error))
            return None
        measured.problems.append(str(error))
    except KeyboardInterrupt:
        if measured is None:
            raise SystemExit(INTERRUPTED) from None
        measured.interrupted = True
    return measured


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--config",
        type=_file,
        default=ROOT / "configs" / "mean.yaml",
        help="the deployment to start, with a store of its own (configs/mean.yaml)",
    )
    which.add_argument("--url", help="load the service that runs there instead")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        help="only this one; may be given several times",
    )
    parser.add_argument("--seconds", type=_at_least(4), default=30, help="of each scenario, its ramp included (30)")
    defaults = ", ".join(f"{name} {scenario.users}" for name, scenario in SCENARIOS.items())
    parser.add_argument("--users", type=_at_least(1), help=f"at once, in every scenario ({defaults})")
    parser.add_argument(
        "--report", type=Path, default=Path("dist/load-test"), help="the folder to write to (dist/load-test)"
    )
    options = parser.parse_args()
    options.scenario = options.scenario or list(SCENARIOS)
    return options


def _require_data(scenarios: Sequence[Scenario]) -> None:
    """Raise `MissingData` with what to do, before anything is started."""
    folder = datasets.folder()
    if any(scenario.searches for scenario in scenarios) and not (folder / "cranfield" / "corpus.jsonl").exists():
        raise datasets.MissingData(f"no cranfield/ in {folder}, which the scenarios search and mixed need")


def _command(options: argparse.Namespace) -> str:
    """Return the command that makes this report again, without paths of this machine or credentials."""
    if options.url:
        url = httpx.URL(options.url)
        asked = ["--url", str(url.copy_with(username=None, password=None))]
    else:
        asked = ["--config", _shown(options.config)]
    asked += ["--seconds", str(options.seconds)]
    asked += ["--users", str(options.users)] if options.users else []
    for name in options.scenario if len(options.scenario) < len(SCENARIOS) else ():
        asked += ["--scenario", name]
    return shlex.join(["python", "-m", "loadtests", *asked, "--report", _shown(options.report)])


def _shown(path: Path) -> str:
    found = path.resolve()
    return str(found.relative_to(ROOT)) if found.is_relative_to(ROOT) else f".../{found.name}"


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}; configs/ has examples")
    return path


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too few; at least {least}")
        return value

    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
