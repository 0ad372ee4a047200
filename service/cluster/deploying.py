"""The application of Ray Serve that the replicas are: how it is deployed, replaced and withdrawn."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any, Final

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from service.cluster.actor import REFUSAL, ReplicaOnRay
from service.cluster.routing import FewestBytes
from service.cluster.scaling import QueuedTokens
from service.cluster.settings import config_of_replica, most_replicas
from service.config import Config
from service.errors import ConfigError

APPLICATION: Final = "millpond"
"""Its name in Ray Serve."""
_DEPLOYMENT: Final = "replicas"
_STARTS: Final = 2
"""How often a replica is started that does not come up."""


def deployment_of(config: Config) -> Any:
    """Return the application of Ray Serve whose handle answers for a config."""
    cluster = config.cluster
    most = most_replicas(config)
    number: dict[str, Any] = {"num_replicas": cluster.replicas}
    if most > cluster.replicas:
        number = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=cluster.replicas,
                max_replicas=most,
                metrics_interval_s=1.0,
                look_back_period_s=5.0,
                upscale_delay_s=3.0,
                downscale_delay_s=300.0,
                policy=AutoscalingPolicy(
                    policy_function=f"{QueuedTokens.__module__}:{QueuedTokens.__name__}",
                    policy_kwargs={"tokens": cluster.queued_tokens},
                ),
            )
        }
    deployment = serve.deployment(
        ReplicaOnRay,
        name=_DEPLOYMENT,
        ray_actor_options={
            "num_cpus": cluster.replica_cpus,
            "num_gpus": 1 if config.runtime.device == "cuda" else 0,
        },
        max_ongoing_requests=config.server.max_requests,  # what waits is bounded by tokens, in the replica
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=config.server.shutdown_timeout,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        max_constructor_retry_count=_STARTS,
        max_surge_percent=100,  # others are there before these stop
        request_router_config=RequestRouterConfig(
            request_router_class=f"{FewestBytes.__module__}.{FewestBytes.__name__}"
        ),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        **number,
    )
    return deployment.bind(config_of_replica(config), os.getcwd())  # noqa: PTH109


def deploy(config: Config) -> Any:
    """Have Ray Serve run the replicas of a config, in place of those that it runs; wait until they are there.

    Raises:
        ConfigError: they do not start. Those that ran before go on.
    """
    try:
        return serve.run(deployment_of(config), name=APPLICATION, route_prefix=None)
    except RuntimeError as error:
        raise ConfigError(_reason(str(error))) from None


def withdraw() -> None:
    """End the replicas, each once it has answered what it has begun."""
    with suppress(RayError, RayServeException):
        serve.delete(APPLICATION)


def _reason(message: str) -> str:
    """Return what a replica said that did not start, out of what Ray Serve made of it."""
    found = re.findall(f"<{REFUSAL}>(.*?)</{REFUSAL}>", _all_messages() + message, re.DOTALL)
    if found:
        return " ".join(found[-1].split())
    return f"replicas do not start: {' '.join(message.split())[-500:]}"


def _all_messages() -> str:
    application = serve.status().applications.get(APPLICATION)
    return "".join(each.message for each in application.deployments.values()) if application else ""
