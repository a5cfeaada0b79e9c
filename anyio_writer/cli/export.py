"""The option ``--otel``: an OpenTelemetry SDK for the time of one command.

Where it exports to is what the usual environment variables say: OTEL_TRACES_EXPORTER and
OTEL_METRICS_EXPORTER ("otlp" unless given, "console", "none" or another that is installed),
OTEL_EXPORTER_OTLP_PROTOCOL, and those that the exporters read themselves.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Final

from ..telemetry.observer import StreamObserver
from .exits import CommandError, Exit

_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


@contextmanager
def exporting() -> Generator[StreamObserver]:
    """Set up an SDK; the remaining spans and metrics are exported when the block ends.

    Yields:
        What reports to it.

    Raises:
        CommandError: The SDK or an exporter is not installed.
    """
    try:  # the packages are not a part of any extra
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from ..telemetry.otel import OpenTelemetryObserver
    except ModuleNotFoundError as exc:
        raise _missing("the OpenTelemetry SDK", "opentelemetry-sdk") from exc

    name = os.environ.get("OTEL_SERVICE_NAME") or "anyio-writer"
    resource = Resource.create({"service.name": name})
    spans, metrics = _exporter("traces"), _exporter("metrics")
    readers = [] if metrics is None else [PeriodicExportingMetricReader(metrics)]
    meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if spans is not None:
        tracer_provider.add_span_processor(BatchSpanProcessor(spans))
    try:
        yield OpenTelemetryObserver(tracer_provider, meter_provider)
    finally:
        tracer_provider.shutdown()
        meter_provider.shutdown()


def _exporter(signal: str) -> Any:
    """What the environment names for "traces" or "metrics"; None for "none"."""
    wanted = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or "otlp"
    if wanted == "none":
        return None
    names = [wanted]
    if wanted == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
        names = [_OTLP[protocol]] if protocol in _OTLP else [*_OTLP.values()]
    for name in names:
        for found in entry_points(group=f"opentelemetry_{signal}_exporter", name=name):
            return found.load()()
    package = "opentelemetry-exporter-otlp-proto-http" if wanted == "otlp" else "its package"
    raise _missing(f"the {signal} exporter {wanted!r}", package)


def _missing(what: str, package: str) -> CommandError:
    return CommandError(
        f'--otel needs {what}, which is not installed: pip install "anyio-writer[otel]" {package}',
        Exit.USAGE,
    )
