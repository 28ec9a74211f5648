"""Sends one event of each kind with the OpenTelemetry SDK as anyone would, and prints the ids that it was given.

usage: send.py grpc|http ENDPOINT MARK
"""

import json
import sys

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode


def exporters(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return (
            OTLPLogExporter(endpoint=endpoint, insecure=True),
            OTLPSpanExporter(endpoint=endpoint, insecure=True),
            OTLPMetricExporter(endpoint=endpoint, insecure=True),
        )
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return (
        OTLPLogExporter(endpoint=endpoint + "/v1/logs"),
        OTLPSpanExporter(endpoint=endpoint + "/v1/traces"),
        OTLPMetricExporter(endpoint=endpoint + "/v1/metrics"),
    )


def main():
    protocol, endpoint, mark = sys.argv[1:4]
    log_exporter, span_exporter, metric_exporter = exporters(protocol, endpoint)
    resource = Resource.create({"service.name": "python-shop", "host.name": "till-7", "replica": 3})
    attributes = {
        "mark": mark,
        "text": "1",
        "whole": 1,
        "broken": 1.0,
        "truth": True,
        "list": ["a", "b"],
        "unicode": "naïve ☕",
    }

    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(SimpleSpanProcessor(span_exporter))
    reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=3_600_000)
    metrics = MeterProvider(resource=resource, metric_readers=[reader])

    meter = metrics.get_meter("shop.meter", "2.0")
    meter.create_counter("orders", unit="{order}", description="Orders taken.").add(5, attributes)
    meter.create_histogram("wait", unit="ms").record(12.5, attributes)

    with traces.get_tracer("shop.tracer", "1.0").start_as_current_span("buy", attributes=attributes) as span:
        span.add_event("paid", {"method": "card"})
        span.set_status(Status(StatusCode.ERROR, "declined"))
        logs.get_logger("shop.log", "3.0").emit(
            timestamp=1_767_225_600_123_456_789,
            severity_number=SeverityNumber.ERROR,
            severity_text="ERROR",
            body="card was declined",
            attributes=attributes,
        )
        context = span.get_span_context()

    # Shutting down sends what waits; a flush before it would send the cumulative metrics twice.
    for provider in (logs, traces, metrics):
        provider.shutdown()
    print(json.dumps({"trace_id": format(context.trace_id, "032x"), "span_id": format(context.span_id, "016x")}))


main()
