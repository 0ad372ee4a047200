"""The application for a config of Ray Serve, such as that of KubeRay's RayService: edge and replicas in one.

import_path: service.cluster.application:application
args: {config: /etc/millpond/config.yaml}
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from service.access import Keyring
from service.cluster.deploying import deployment_of
from service.cluster.edge import Edge
from service.cluster.fleet import FleetOnRay
from service.cluster.settings import require_clusterable
from service.config import Config, load_config
from service.errors import ConfigError
from service.observation import logs
from service.process import open_many_files


def application(args: dict[str, str]) -> Any:
    """Return the application of a config file, whose path is the argument `config`.

    Raises:
        ConfigError: the config is at fault, or cannot be served by replicas.
    """
    path = args.get("config")
    if not path or args.keys() != {"config"}:
        raise ConfigError("args: give the path of a config file alone, such as {config: /etc/millpond/config.yaml}.")
    config = load_config(path)
    require_clusterable(config)
    edge = serve.deployment(
        _EdgeOnRay,
        name="edge",
        num_replicas=1,  # which counts what keys have sent
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=2 * config.server.max_requests,  # the edge refuses beyond `server.max_requests`
        graceful_shutdown_timeout_s=config.server.shutdown_timeout,
        max_surge_percent=100,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    return edge.bind(config, deployment_of(config))


@serve.ingress()
class _EdgeOnRay:
    """The edge behind the HTTP proxies of Ray Serve.

    A file of keys is read again whenever it changes. What else changes is a change of the application, which Ray
    Serve follows by replacing replicas.
    """

    def __init__(self, config: Config, handle: Any) -> None:
        logs.configure(config.server.log_format, config.server.log_level)
        open_many_files()
        self._edge = Edge(FleetOnRay(config, handle, Keyring(config.access)))

    def __serve_build_asgi_app__(self) -> Edge:
        return self._edge
