"""What was measured, as tables of Markdown and as a chart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Final

from .clients import CLIENTS
from .scenarios import SCENARIOS, Column, Scenario

Row = dict[str, Any]

_CHARTED: Final = ("one", "asyncio")


def values(row: Row, number: str) -> list[float | None]:
    """One number of every round; None where the client failed."""
    return [sample.get(number) for sample in row["rounds"]]


def least(row: Row, number: str) -> float | None:
    return min((value for value in values(row, number) if value is not None), default=None)


def ratio(row: Row, base: Row | None, number: str, plus: str = "") -> float | None:
    """The median of the ratios of what was measured one after the other, in one round.

    Args:
        row: What is compared.
        base: With what.
        number: Which number of both.
        plus: The number of ``row`` that is added to that of ``base``, if any.
    """
    if base is None:
        return None
    added = values(row, plus) if plus else [0.0] * len(row["rounds"])
    pairs = zip(values(row, number), values(base, number), added, strict=True)
    found = [mine / (other + (more or 0)) for mine, other, more in pairs if mine and other]
    return median(found) if found else None


def baseline(row: Row, rows: list[Row], client: str) -> Row | None:
    """What a row is compared with: the same way of reading if there is one."""
    same = [
        each
        for each in rows
        if each["client"] == client
        and (each["case"], each["backend"]) == (row["case"], row["backend"])
    ]
    way = row["way"].removesuffix(", batches").replace("batches", "iterate")
    return next((each for each in same if each["way"] == way), same[-1] if same else None)


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def write_tables(name: str, rows: list[Row]) -> str:
    """The table of one scenario; empty if nobody took part."""
    scenario = SCENARIOS[name]
    rows = [row for row in rows if row["scenario"] == name]
    if not rows:
        return ""
    heads = {head: key for key, head in _heads(scenario) if len({row[key] for row in rows}) > 1}
    baselines = [each for each in scenario.baselines if each in {row["client"] for row in rows}]
    numbers = [f"{scenario.unit}, least", *(f"to {client}" for client in baselines)]
    numbers += ["growth"] * scenario.grows + [column.heading for column in scenario.columns]
    lines = []
    for row in sorted(rows, key=_place(rows)):
        cells = [row[key] for key in heads.values()]
        cells.append(_outcome(row, scenario.number))
        cells += (_compared(row, rows, client, scenario.number) for client in baselines)
        if scenario.grows:
            cells.append(shown(ratio(row, _first_of_its_kind(row, rows), scenario.number)))
        cells += (_further(row, rows, column) for column in scenario.columns)
        lines.append(cells)
    return f"**{scenario.title}**\n\n{_table([*heads], numbers, lines)}"


def _heads(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """What may tell rows apart. Only what differs within a table gets a column."""
    yield "case", "Stream"
    yield "backend", "Backend"
    yield "client", "Client"
    yield "way", scenario.way


def _table(names: list[str], numbers: list[str], lines: Iterable[list[str]]) -> str:
    rules = ["---"] * len(names) + ["---:"] * len(numbers)
    rows = [[*names, *numbers], rules, *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _outcome(row: Row, number: str) -> str:
    """The least of all rounds, or why there is none."""
    found = least(row, number)
    if found is None and (limits := values(row, "gave_up_s")):
        return "failed" if None in limits else f"above {limits[0]:g} s"
    return shown(found)


def _compared(row: Row, rows: list[Row], client: str, number: str, plus: str = "") -> str:
    return shown(ratio(row, baseline(row, rows, client), number, plus))


def _further(row: Row, rows: list[Row], column: Column) -> str:
    if column.ratio_to:
        return _compared(row, rows, column.ratio_to, column.number, column.plus)
    found = [value for value in values(row, column.number) if value is not None]
    text = shown(median(found) if found else None)
    return f"{text}, overloaded" if column.number == "late" and overloaded(row) else text


def overloaded(row: Row) -> bool:
    """Whether a client could not keep up, in most of the rounds."""
    found = [value for value in values(row, "overloaded") if value is not None]
    return bool(found) and median(found) > 0


def _first_of_its_kind(row: Row, rows: list[Row]) -> Row:
    """The same, in the first of the cases that begin alike: ``text, 500`` for ``text, 8,000``."""

    def kind(each: Row) -> list[str]:
        shape = each["case"].partition(", ")[0]
        return [shape, each["backend"], each["client"], each["way"]]

    return next(each for each in rows if kind(each) == kind(row))


_BURST, _PACED, _OPEN = "one", "many", "idle"


def write_service(rows: list[Row]) -> str:
    """What one core and one GiB are enough for, out of what was measured."""
    lines = []
    opened = [row for row in rows if row["scenario"] == _OPEN]
    at_once = [row for row in opened if row["case"] == opened[0]["case"]]
    for idle in sorted(at_once, key=_place(rows)):
        cells = [idle["backend"], idle["client"]]
        for name in (_BURST, _PACED):
            same = (
                row
                for row in rows
                if (row["scenario"], row["way"]) == (name, idle["way"])
                and (row["backend"], row["client"]) == (idle["backend"], idle["client"])
            )
            found = next((least(row, SCENARIOS[name].number) for row in same), None)
            cells.append(_whole(1e6 / found if found else None))
        memory = least(idle, SCENARIOS[_OPEN].number)
        lines.append([*cells, _whole(2**20 / memory if memory and memory > 0 else None)])
    numbers = ["chunks/s per core, in bursts", "one by one", "open streams per GiB"]
    return _table(["Backend", "Client"], numbers, lines)


def _whole(value: float | None) -> str:
    """Two digits that count: the third is noise."""
    if value is None:
        return "-"
    digits = 2 - len(str(int(value)))
    return f"{round(value, digits):,.0f}"


def _place(rows: list[Row]) -> Any:
    """Cases and backends as they were run, clients as they stand in their table."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    clients = list(CLIENTS)
    return lambda row: (
        cases.index(row["case"]),
        backends.index(row["backend"]),
        clients.index(row["client"]),
        row["way"] != "iterate",
    )


def describe_machine(found: Row) -> str:
    about = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['date']}, a {found['mode']} run: {about['processor'] or about['system']}, "
        f"{about['cpus']} CPUs, {about['system']}, {about['python']}.\n\n{versions}.\n"
    )


def describe_clients() -> str:
    rows = [f"| {name} | {client.about} |" for name, client in CLIENTS.items()]
    return "\n".join(["| Client | What runs |", "| --- | --- |", *rows]) + "\n"


def update_document(path: Path, found: Row) -> None:
    """Fill what stands between ``<!-- NAME -->`` and ``<!-- end -->``."""
    parts = {"machine": describe_machine(found), "clients": describe_clients()}
    for name in dict.fromkeys(row["scenario"] for row in found["results"]):
        parts[name] = write_tables(name, found["results"]).partition("\n\n")[2]
    if any(row["scenario"] == _OPEN for row in found["results"]):
        parts["service"] = write_service(found["results"])

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        text = f"\n{parts[name]}\n" if name in parts else match[2]
        return f"<!-- {name} -->\n{text}<!-- end -->"

    text = path.read_text(encoding="utf-8")
    filled = re.sub(r"<!-- (\w+) -->\n(.*?)<!-- end -->", fill, text, flags=re.DOTALL)
    path.write_text(filled, encoding="utf-8")


# The chart: bars, in colours that can be read on white and on black.

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT, _TOP = 760, 20, 8, 240, 70, 48
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}"
    ".title{font-weight:600}"
    ".bar{fill:#8c959f}.ours{fill:#1f83d6}"
    "@media(prefers-color-scheme:dark){text{fill:#adbac7}.bar{fill:#768390}.ours{fill:#4aa3f0}}"
)


def write_chart(path: Path, found: Row) -> None:
    """Microseconds per chunk, everybody on asyncio."""
    name, backend = _CHARTED
    number = SCENARIOS[name].number
    rows = [
        row for row in found["results"] if row["scenario"] == name and row["backend"] == backend
    ]
    bars = [
        (f"{row['client']}, {_WAYS[row['way']]}", value, row["client"].startswith("anyio-writer"))
        for row in sorted(rows, key=_place(rows))
        if (value := least(row, number)) is not None
    ]
    if bars:
        path.write_text(chart("CPU time per chunk of a stream, µs, asyncio", bars), "utf-8")


_WAYS: Final = {"iterate": "one by one", "batches": "batches()", "final": "final completion"}


def chart(title: str, bars: list[tuple[str, float, bool]]) -> str:
    """Horizontal bars as SVG."""
    height = _TOP + len(bars) * (_BAR + _GAP)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(value for _, value, _ in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="0" y="20">{escape(title)}</text>',
    ]
    for position, (label, value, ours) in enumerate(bars):
        y = _TOP + position * (_BAR + _GAP)
        length = max(1, value * scale)
        look = "ours" if ours else "bar"
        box = f'x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"'
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{look}" {box}/>',
            f'<text x="{_LEFT + length + 6:.1f}" y="{y + 15}">{shown(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
