"""An OpenTelemetry SDK that keeps everything in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from anyio_writer.telemetry import OpenTelemetryObserver


class SDK:
    """Where spans and metrics end up."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracer_provider.get_tracer("test")
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def observer(self, **arguments: Any) -> OpenTelemetryObserver:
        return OpenTelemetryObserver(self.tracer_provider, self.meter_provider, **arguments)

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """The spans that have ended, whose names begin so."""
        return [each for each in self.exporter.get_finished_spans() if each.name.startswith(name)]

    def span(self, name: str = "") -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    def metrics(self) -> dict[str, Any]:
        """What has been measured, by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[Any]:
        metric = self.metrics().get(name)
        return [] if metric is None else list(metric.data.data_points)

    def point(self, name: str) -> Any:
        (found,) = self.points(name)
        return found


@pytest.fixture
def sdk(caplog: pytest.LogCaptureFixture) -> Iterator[SDK]:
    """A new one, whose contexts are left in the tasks in which they were entered."""
    yield SDK()
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert not [each for each in records if each.name.startswith("opentelemetry.context")]
