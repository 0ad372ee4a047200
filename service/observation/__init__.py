"""What the service notes of its own work: requests and their phases, sizes and durations, and log lines.

Rooms note; only the API knows who reads it. Nothing here knows of HTTP, Prometheus or OpenTelemetry.
"""

from service.observation.histogram import DURATIONS, POWERS_OF_TWO, Histogram
from service.observation.request import Observed, Phase, observed, observing, phase

__all__ = ["DURATIONS", "POWERS_OF_TWO", "Histogram", "Observed", "Phase", "observed", "observing", "phase"]
