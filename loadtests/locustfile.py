"""What Locust runs: the users, the options that describe the deployment to them, and the record of each request.

It can be run by hand as well, with Locust's own page to steer it:

    python -m loadtests.texts texts.json
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --collection papers EmbedSmall
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.records import FAILURE, OK, Record, Writer
from loadtests.users.embed import EmbedBulk, EmbedImpatient, EmbedSmall
from loadtests.users.mixed import Anything, ReadAndWrite
from loadtests.users.search import SearchDocuments
from loadtests.users.watch import Watcher

__all__ = [
    "Anything",
    "EmbedBulk",
    "EmbedImpatient",
    "EmbedSmall",
    "ReadAndWrite",
    "SearchDocuments",
    "Watcher",
]


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Tell Locust of the options."""
    group = parser.add_argument_group("Millpond")
    group.add_argument("--model", default="default", help="the served model to embed with")
    group.add_argument("--dimension", type=int, default=384, help="of that model's vectors")
    group.add_argument("--collection", default="cranfield", help="where Cranfield's documents are")
    group.add_argument("--texts", default="texts.json", help="a file by `python -m loadtests.texts`")
    group.add_argument("--phases", help="users and the second up to which there are so many, as 20:60,200:120")
    group.add_argument("--record", help="a file for what happened to each request")


@events.init.add_listener
def record(environment: Environment, **_: Any) -> None:
    """Write down every request, where a file for it is named."""
    assert environment.parsed_options is not None
    path = environment.parsed_options.record
    if path is None:
        return

    def begin(**_: Any) -> None:
        writer = Writer(Path(path))

        def add(name: str, milliseconds: float, texts: int, outcome: str, detail: str) -> None:
            assert environment.runner is not None
            users = environment.runner.user_count
            writer.add(Record(time.time(), name, milliseconds, texts, users, outcome, detail))

        def on_request(
            name: str, response_time: float, exception: Exception | None, context: dict[str, Any], **_: Any
        ) -> None:
            outcome = context.get("outcome", FAILURE if exception else OK)
            add(name, response_time, context.get("texts", 0), outcome, str(exception or ""))

        def on_user_error(exception: Exception, **_: Any) -> None:
            add("the scenario itself", 0.0, 0, FAILURE, repr(exception))

        environment.events.request.add_listener(on_request)
        environment.events.user_error.add_listener(on_user_error)

    environment.events.test_start.add_listener(begin)
