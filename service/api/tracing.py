"""Whether traces are asked for, by the environment variables that OpenTelemetry has for all programs.

Where none are, nothing of OpenTelemetry is imported, and a request costs nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.api.middleware.observe import Observer

logger = logging.getLogger(__name__)


def traces(variables: Mapping[str, str]) -> list[Observer]:
    """Return what sends traces, if they are asked for.

    Raises:
        ConfigError: there is no such exporter.
    """
    asking = _asking(variables)
    if asking is None:
        return []
    try:
        from service.api.traces import Traces, provider_from
    except ImportError as error:
        logger.warning(
            "%s asks for traces, and %s; pip install 'millpond[otel]' brings what sends them", asking, error
        )
        return []
    return [Traces(provider_from(variables))]


def _asking(variables: Mapping[str, str]) -> str | None:
    """Return the name of a variable that asks for traces."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if (exporter := variables.get("OTEL_TRACES_EXPORTER")) is not None:
        return None if exporter.strip().lower() in ("", "none") else "OTEL_TRACES_EXPORTER"
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in endpoints if variables.get(name)), None)
