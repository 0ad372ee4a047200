"""Evaluations of a running service: one at a time, in small parts beside other requests, as long as one is wanted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pooling.layers import LayerSpec
from pooling.tasks import Task
from service.embedding.embedder import Embedder
from service.embedding.models import Models
from service.embedding.viewing import require_count
from service.encoder.metering import count_tokens, metered
from service.encoder.progress import Progress
from service.errors import InvalidInput, NoSpace, Place, TooLarge, Unavailable
from service.evaluation.evaluate import evaluate
from service.evaluation.report import Report
from service.evaluation.rows import examples, place_of, task_of
from service.evaluation.strategies import FIXED, Strategy, choose
from service.process import in_background

logger = logging.getLogger(__name__)

_BATCH: Final = 16
"""Texts in the queue at a time, twice, so that other requests need not wait long."""
_MOST_NUMBERS: Final = 2**26
"""Numbers of all vectors together, which are in a temporary folder meanwhile: 256 MB."""
_EVERY: Final = 0.25
"""Seconds between two steps that are told of one stage."""
_COME_BACK: Final = 10
"""Seconds after which a client may ask again that found another evaluation under way."""


class _Stopped(Exception):
    """Nobody wants the evaluation any more."""


@dataclass(frozen=True)
class Step:
    """How far a stage of an evaluation is: so many of so many."""

    stage: str
    done: int
    total: int


class Evaluation:
    """An evaluation on a thread, begun in a coroutine whose context pays for its tokens.

    Args:
        work: what is done, and tells how far it is.
    """

    def __init__(self, work: Callable[[Progress], Report]) -> None:
        self._loop = asyncio.get_running_loop()
        self._payer = copy_context()
        self._work = work
        self._stopped = False
        self._told = Step("", 0, 0)
        self._told_at = 0.0
        self._step: Step | None = None
        self._news = asyncio.Event()
        self._result = self._loop.run_in_executor(None, in_background, self._run)
        self._result.add_done_callback(self._done)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._result.done()

    @property
    def stopped(self) -> bool:
        """Whether it has been told to end early."""
        return self._stopped

    def stop(self) -> None:
        """End within the batch that is computed now."""
        self._stopped = True

    async def ended(self) -> None:
        """Wait for its end, whatever it came to."""
        await asyncio.wait([self._result])

    async def steps(self, patience: float) -> AsyncIterator[Step | None]:
        """Yield the latest step whenever there is one, and None after so many seconds without; until the end."""
        while True:
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                yield None
                continue
            self._news.clear()
            step, self._step = self._step, None
            if step is not None:
                yield step
            if self._result.done():
                return

    async def report(self) -> Report:
        """Wait for the report.

        Raises:
            ServiceError: it failed, or was stopped.
        """
        found = await asyncio.shield(self._result)
        if found is None:
            raise Unavailable("the evaluation was stopped before its end; send the request again.")
        return found

    def _run(self) -> Report | None:
        """Do the work, in a thread of its own."""
        try:
            with metered(lambda tokens: self._call(partial(count_tokens, tokens))):
                return self._work(self._progress)
        except _Stopped:
            return None
        except OSError as error:
            logger.exception("an evaluation could not keep its vectors")
            raise NoSpace(
                f"the service cannot keep the vectors of an evaluation in its temporary folder ({error.strerror}). "
                "Give it room there (TMPDIR), or send less."
            ) from None

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._stopped:
            raise _Stopped
        step, now = Step(stage, done, total), time.monotonic()
        due = stage != self._told.stage or done == total or now - self._told_at >= _EVERY
        if due and step != self._told:
            self._told, self._told_at = step, now
            self._call(partial(self._tell, step))

    def _tell(self, step: Step) -> None:
        self._step = step
        self._news.set()

    def _call(self, what: Callable[[], object]) -> None:
        """Have the event loop call something, in the context of who began it."""
        try:
            self._loop.call_soon_threadsafe(what, context=self._payer)
        except RuntimeError:  # the loop has ended, and with it who waited
            raise _Stopped from None

    def _done(self, result: asyncio.Future[Report | None]) -> None:
        if not result.cancelled():
            result.exception()  # is told to who asks for the report, if anybody does
        self._news.set()


class Evaluations:
    """Evaluates poolings of served models for clients.

    Args:
        models: the served models.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self._latest: Evaluation | None = None

    async def begin(
        self,
        *,
        model: str | None = None,
        poolings: Sequence[str] | None = None,
        layers: LayerSpec | None = None,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> Evaluation:
        """Begin an evaluation.

        Args:
            model: its name; the default one for None.
            poolings: those that are compared; by default those of `FIXED` that fit. The one that the checkpoint
                declares is compared as well.
            layers: whose states they pool; those of the model for None.
            rows: a data set by its layout; none for the packaged examples.

        Raises:
            ServiceError: there is something wrong with the model, a pooling or the data.
            Unavailable: another one is under way, or the service has too much to do.
        """
        notes: list[str] = []
        strategies = await asyncio.to_thread(self._strategies, model, poolings, layers, notes)
        embedder = self._models.get(model, None, layers)
        name, given = next(iter(rows.items()), ("examples", None))
        task = await asyncio.to_thread(examples if given is None else partial(task_of, name, given))
        numbers = sum(len(part.texts) for part in task.parts) * sum(each.embedder.dim for each in strategies)
        field = "data" if given is None else name
        if numbers > _MOST_NUMBERS:
            raise TooLarge(
                f"the vectors under all {len(strategies)} poolings have {numbers} numbers together, and one request "
                f"takes {_MOST_NUMBERS}. Send fewer rows, or name fewer or smaller poolings.",
                where=Place(field),
                limit=_MOST_NUMBERS,
            )
        place = place_of(field, given or ())
        for part in task.parts:
            where = lambda index, texts=part.texts: place(texts[index])  # noqa: E731
            await embedder.check(part.texts, role=part.role, truncate="right", where=where)
        await self._turn()
        self._latest = Evaluation(partial(_evaluated, embedder, strategies, name, task, notes))
        return self._latest

    async def close(self) -> None:
        """End the evaluation under way."""
        if self._latest is not None:
            self._latest.stop()
            await self._latest.ended()

    async def _turn(self) -> None:
        """Wait for the end of an evaluation that nobody wants; raises `Unavailable` while another one is wanted."""
        while self._latest is not None and not self._latest.is_over:
            if not self._latest.stopped:
                raise Unavailable(
                    f"another evaluation is under way, and they are made one at a time. Send the request again in "
                    f"{_COME_BACK} s.",
                    retry_after=_COME_BACK,
                )
            await self._latest.ended()

    def _strategies(
        self, model: str | None, poolings: Sequence[str] | None, layers: LayerSpec | None, notes: list[str]
    ) -> list[Strategy]:
        embedder = self._models.get(model)
        if embedder.routes:
            raise InvalidInput(
                f"an evaluation of poolings is of one encoder, and model {embedder.name!r} has a Router, which sends "
                "texts of different roles different ways. Name a model without a Router.",
                where=Place("model"),
            )
        if poolings is not None:
            require_count(poolings)
            for spec in poolings:
                self._models.get(model, spec, layers)  # says what is wrong with it as for all requests
        return choose(self._models.get(model, None, layers), poolings or (), (), notes.append, FIXED)


def _evaluated(
    embedder: Embedder,
    strategies: Sequence[Strategy],
    name: str,
    task: Task,
    notes: Sequence[str],
    progress: Progress,
) -> Report:
    prefix = f"{name}: "
    return evaluate(
        embedder,
        strategies,
        [(name, task)],
        notes=notes,
        progress=lambda stage, done, total: progress(stage.removeprefix(prefix), done, total),
        batch_size=_BATCH,
    )
