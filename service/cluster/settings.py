"""What a config says of a cluster: what is refused, how many replicas there are, and what each needs to know."""

from __future__ import annotations

import math

from service.config import AccessConfig, Config, StoreConfig, TLSConfig
from service.errors import ConfigError


def require_clusterable(config: Config) -> None:
    """Raise `ConfigError` where replicas cannot serve what a config asks for."""
    if config.store.engine == "embedded" and config.store.model_fields_set:
        raise ConfigError(
            f"store: {config.store.path} is a folder of one process, which replicas cannot share. Leave `store` out "
            "of the config of a cluster, keep documents in a Milvus server by `store: {engine: milvus, uri: ...}`, "
            "or serve collections with `millpond serve`."
        )
    cluster = config.cluster
    if cluster.max_replicas is not None and cluster.max_replicas < cluster.replicas:
        raise ConfigError(
            f"cluster.max_replicas is {cluster.max_replicas}, below cluster.replicas, which is {cluster.replicas}. "
            "Raise it, or leave it out for a fixed number."
        )


def most_replicas(config: Config) -> int:
    """Return how many replicas there may be."""
    return config.cluster.max_replicas or config.cluster.replicas


def cpus_of_own_cluster(config: Config) -> int:
    """Return how many CPUs a cluster on this machine says that it has: enough to replace all replicas at once.

    Ray keeps count of them and nothing else; how many threads there are is each replica's affair.
    """
    return math.ceil(2 * most_replicas(config) * config.cluster.replica_cpus) + 1


def config_of_replica(config: Config) -> Config:
    """Return what a replica knows of a config: neither keys nor addresses, and as many threads as it has CPUs.

    Replicas of equal ones are alike, so a change of anything else replaces none.
    """
    runtime, server = config.runtime, config.server
    if runtime.threads == "auto":
        runtime = runtime.model_copy(update={"threads": max(1, int(config.cluster.replica_cpus))})
    of_edge = {name: type(server)().model_dump()[name] for name in _OF_EDGE}
    return config.model_copy(
        update={
            "runtime": runtime,
            "server": server.model_copy(update=of_edge),
            "store": StoreConfig() if config.store.engine == "embedded" else config.store,
            "tls": TLSConfig(),
            "access": AccessConfig(),
        }
    )


_OF_EDGE = ("host", "port", "root_path", "keep_alive", "allowed_hosts", "cors_origins", "access_log")
"""Keys of `server` that concern connections alone."""
