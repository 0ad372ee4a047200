"""Which replica answers a request: the one with the fewest bytes of requests under way.

All that asks for reindexes is answered by one replica, since who runs them alone knows how far they are, and two that
run the same one disturb each other.
"""

from __future__ import annotations

import random
import re
from typing import Final

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    ReplicaResult,
    RequestRouter,
    RunningReplica,
)

_REINDEX: Final = re.compile(r"/collections/[^/]+/reindex/?")
"""The path of a reindex. One replica answers for all collections, each of which may have several names."""


class FewestBytes(RequestRouter):  # type: ignore[misc]
    """Sends each request where the least is under way, by the bytes of bodies.

    Bytes stand for tokens, which are known only once a replica has tokenized, as they do in the admission to an
    encoder's queue. The number of requests, by which Ray Serve chooses, says little of work: one has a word, another
    a thousand abstracts.
    """

    _under_way: dict[str, tuple[ReplicaID, int]]
    _bytes: dict[ReplicaID, int]
    _reindexing: ReplicaID | None

    def initialize_state(self) -> None:
        """Begin to count."""
        self._under_way = {}
        self._bytes = {}
        self._reindexing = None

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Rank replicas, each in a rank of its own; of equal ones, those with fewer requests are first.

        For a reindex there is one alone, the same for as long as it runs. Ray's FIFOMixin would give that replica to
        whichever request waits longest.
        """

        def load(replica: RunningReplica) -> tuple[int, int, float]:
            requests = self.replica_queue_len_cache.get(replica.replica_id) or 0
            return self._bytes.get(replica.replica_id, 0), requests, random.random()

        ranked = sorted(candidate_replicas, key=load)
        if ranked and pending_request is not None and _is_of_reindex(pending_request):
            kept = next((each for each in ranked if each.replica_id == self._reindexing), ranked[0])
            self._reindexing = kept.replica_id
            return [[kept]]
        return [[replica] for replica in ranked]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """Count a request that a replica has taken."""
        size = sum(len(body) for each in pending_request.args if (body := getattr(each, "body", None)) is not None)
        self._under_way[pending_request.metadata.internal_request_id] = replica_id, size
        self._bytes[replica_id] = self._bytes.get(replica_id, 0) + size

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count one that has ended, however it did."""
        taken_by, size = self._under_way.pop(internal_request_id, (replica_id, 0))
        left = self._bytes.get(taken_by, 0) - size
        if left > 0:
            self._bytes[taken_by] = left
        else:
            self._bytes.pop(taken_by, None)


def _is_of_reindex(request: PendingRequest) -> bool:
    return any(_REINDEX.fullmatch(getattr(each, "path", "")) for each in request.args)
