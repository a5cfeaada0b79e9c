"""What is reported to OpenTelemetry is what the documents and the conventions say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from opentelemetry.sdk.metrics.export import Histogram
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from anyio_writer.telemetry import conventions
from tests.blocks import ROOT
from tests.telemetry.conftest import SDK
from tests.telemetry.tour import tour

GUIDE: Final = (ROOT / "docs/guides/observability.md").read_text(encoding="utf-8")
RELEASE: Final = {
    line
    for line in (Path(__file__).parent / "genai_v0_1_0.txt").read_text().splitlines()
    if not line.startswith("#")
}
PACKAGE: Final = {
    value
    for module in (
        *(error_attributes, gen_ai_attributes, gen_ai_metrics, http_attributes, server_attributes),
    )
    for value in vars(module).values()
    if isinstance(value, str)
}
"""What the installed package opentelemetry-semantic-conventions names."""

COMMON: Final = {
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
}


def table(title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = GUIDE.partition(f"\n### {title}\n")[2].partition("\n| ---")[2].partition("\n\n")[0]
    rows = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    assert rows
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


async def test_the_attributes_of_spans_are_the_documented_ones(sdk: SDK) -> None:
    await tour(sdk, sdk.observer(capture_content=True))
    reported: dict[str, list[set[str]]] = defaultdict(list)
    for span in sdk.spans():
        attributes = dict(span.attributes or {})
        if operation := attributes.get("gen_ai.operation.name"):
            assert span.name.startswith(str(operation))
            reported[str(operation)].append(set(attributes))
    operations = ("chat", "execute_tool", "invoke_agent")
    assert reported.keys() == {*operations}
    for column, operation in enumerate(operations, start=1):
        documented = {names_in(row[0])[0]: row[column] for row in table("Attributes of spans")}
        spans = reported[operation]
        assert set[str]().union(*spans) == {name for name, when in documented.items() if when}
        always = {name for name, when in documented.items() if when == "yes"}
        assert set[str].intersection(*spans) >= always
        failed = [names for names in spans if "error.type" in names]
        assert 0 < len(failed) < len(spans)


async def test_the_metrics_are_the_documented_ones(sdk: SDK) -> None:
    await tour(sdk, sdk.observer())
    documented = {
        names_in(name)[0]: (instrument, names_in(unit)[0], set(names_in(attributes)))
        for name, instrument, unit, attributes in table("Metrics")
    }
    reported = {
        name: (
            "Histogram" if isinstance(metric.data, Histogram) else "Counter",
            metric.unit,
            {each for point in metric.data.data_points for each in point.attributes},
        )
        for name, metric in sdk.metrics().items()
    }
    own = [*documented][:10]
    assert {
        name: (instrument, unit, attributes - COMMON if name in own else attributes)
        for name, (instrument, unit, attributes) in reported.items()
    } == documented
    for name in own:
        assert reported[name][2] >= COMMON - {"gen_ai.response.model"}


async def test_the_buckets_are_those_of_the_conventions(sdk: SDK) -> None:
    await tour(sdk, sdk.observer())
    bounds = {
        name: [*metric.data.data_points[0].explicit_bounds]
        for name, metric in sdk.metrics().items()
        if isinstance(metric.data, Histogram)
    }
    for name, found in bounds.items():
        first, factor, count = (
            (0.1, 2, 13)
            if name == "gen_ai.invoke_agent.duration"
            else (0.01, 2, 14)
            if not name.endswith(("_tokens", "_calls"))
            else (1, 4, 14)
            if name.endswith("_tokens")
            else (1, 2, 8)
        )
        assert len(found) == count, name
        assert found == [first * factor**power for power in range(count)]


def all_names() -> Iterator[str]:
    """Every attribute and metric, from the documents and from the code."""
    for title in ("Attributes of spans", "Metrics"):
        for row in table(title):
            yield names_in(row[0])[0]
            if title == "Metrics":
                yield from names_in(row[3])
    yield from conventions.REQUEST.values()
    yield from (
        value
        for name, value in vars(conventions).items()
        if name.isupper() and isinstance(value, str) and "." in value and not value.endswith(".")
        if not name.endswith("_TOKENS") and name != "RELEASE"
    )


def test_every_name_is_of_the_conventions_or_ours() -> None:
    for name in {*all_names()}:
        assert name in RELEASE or name in PACKAGE or name.startswith("anyio_writer."), name


def test_the_list_of_the_release_is_no_invention() -> None:
    """Most of it was in the general conventions before, of which there is a package."""
    new = RELEASE - PACKAGE
    assert new == {
        "gen_ai.conversation.compacted",
        "gen_ai.prompt.version",
        "gen_ai.request.previous_response.id",
        "gen_ai.request.reasoning.level",
        "gen_ai.token.modality",
        "gen_ai.usage.cache_write.input_tokens",
        *(name for name in RELEASE if name.startswith("gen_ai.client.inference.")),
        *(name for name in RELEASE if re.match(r"gen_ai\.(execute_tool|invoke_agent)\.", name)),
    }
    assert conventions.RELEASE == "v0.1.0"
    assert "release v0.1.0" in GUIDE


def test_the_queries_ask_for_what_prometheus_is_shown() -> None:
    queries = GUIDE.partition("```promql\n")[2].partition("```")[0]
    asked = set(re.findall(r"\b(?:gen_ai|anyio_writer)_\w+?(?=_bucket|_count\b|\[|\{)", queries))
    shown = GUIDE.partition("prometheus_client import")[2].partition("```text\n")[2].split("```")[0]
    assert len(asked) > 4
    assert asked <= {*shown.split()}
    labels = set(re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", queries))
    attributes = {name.replace(".", "_") for name in all_names()} | {"le"}
    assert {each for group in labels for each in group.split(", ")} <= attributes
