"""What the documents say is so: README's programs run, tables and maps are complete.

The programs of the site run in tests/docs, which has the libraries that they use.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import writerai
from writerai.lib.streaming.chat import AsyncChatCompletionStream

import anyio_writer
from anyio_writer import WriterError
from anyio_writer.cli.exits import MEANINGS
from anyio_writer.config import StreamSettings, Timeouts
from anyio_writer.conversation import DEFAULT_MAX_ROUNDS
from anyio_writer.request.params import BuiltInTool
from anyio_writer.streaming.tool_runs import DEFAULT_LIMIT
from anyio_writer.testing import ChatServer, text_reply
from tests.blocks import ANSWER, ROOT, run_in_order

README: Final = ROOT / "README.md"
REFERENCE: Final = ROOT / "docs/reference"
MOST_WORDS: Final = 1_100
DOCUMENTS: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
EVENTS: Final = [
    typing.get_origin(event) or event
    for event in typing.get_args(anyio_writer.ChatCompletionStreamEvent)
]
COMMON: Final = {"type", "choice_index"}


def section(document: str, title: str) -> str:
    """What stands under a heading of the site."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    found = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"{document} has no section {title!r}"
    return found


def table(text: str) -> list[list[str]]:
    """The cells of the first table of a text, without its head."""
    rows = re.findall(
        r"^\|(.*)\|$", text.partition("\n| ---")[2].partition("\n\n")[0], re.MULTILINE
    )
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def rows(document: str, title: str) -> list[list[str]]:
    return table(section(document, title))


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


async def test_every_python_block_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed = await run_in_order(README, monkeypatch, capsys, tmp_path)
    assert printed.startswith(f"{ANSWER}\n[stop]\n")
    assert sorted(printed.splitlines()[2:4]) == [
        f"Why is the sea? {ANSWER}",
        f"Why is the sky blue? {ANSWER}",
    ]
    assert f"\nlogged: {ANSWER}\n" in printed
    assert "\n{'summary': 'Because of'}\n" in printed
    assert "\n['light', 'air']\n" in printed
    assert f"[temperature: 16.0]\n[temperature: 16.0]\n{ANSWER}{ANSWER}\n" in printed
    assert printed.endswith(f"{ANSWER}\n")


def test_it_can_be_taken_in() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_its_links_work_on_a_package_index() -> None:
    """They are absolute, and what they lead to in this repository is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project["urls"]["Source"]
    text = README.read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)]+)\)", text), *project["urls"].values()]
    ours = [link for link in links if link.startswith(source)]
    assert len(ours) > 15
    for link in links:
        assert link.startswith("https://"), link
    for link in ours:
        if path := re.fullmatch(r"/(?:blob|tree|raw)/main/(.+)", link.removeprefix(source)):
            assert (ROOT / path[1]).exists(), link


def test_the_event_table_is_the_union() -> None:
    documented = {
        (code_in(kind)[0], code_in(cls)[0]): set(code_in(fields))
        for kind, _, fields, cls in rows("reference/events.md", "The events of a stream")
    }
    actual = {}
    for event in EVENTS:
        properties = [name for name, _ in inspect.getmembers(event, is_property)]
        carried = {*event.__struct_fields__, *properties} - COMMON
        actual[event.type, event.__name__] = carried
        assert ("choice_index" in event.__struct_fields__) == (event.type != "chunk")
    assert documented == actual


def test_the_other_event_table_is_the_conversations_own() -> None:
    documented = [
        (code_in(kind)[0], code_in(cls)[0], code_in(fields))
        for kind, _, fields, cls in rows("reference/events.md", "The events of a conversation")
    ]
    assert documented == [
        (event.type, event.__name__, [*event.__struct_fields__])
        for event in typing.get_args(anyio_writer.ConversationEvent)
        if (typing.get_origin(event) or event) not in EVENTS
    ]


def test_the_table_of_the_servers_own_tools_is_their_union() -> None:
    documented = rows("reference/requests.md", "Tools that the server runs")
    tools = typing.get_args(BuiltInTool)
    assert [(code_in(kind)[0], code_in(cls)[0]) for kind, cls, _ in documented] == [
        (*typing.get_args(typing.get_type_hints(tool)["type"]), tool.__name__) for tool in tools
    ]
    reported = [code_in(where) for _, _, where in documented if code_in(where)]
    assert [f"message.{name}" for name in data_fields()] == [name for (name,) in reported]


def data_fields() -> list[str]:
    fields = anyio_writer.ParsedChatCompletionMessage.__struct_fields__
    return [name for name in fields if name.endswith("_data")]


def test_how_many_calls_and_rounds_there_may_be() -> None:
    text = (ROOT / "docs/guides/tools.md").read_text(encoding="utf-8")
    assert f"At most {DEFAULT_LIMIT} calls run at once (`limit`)" in text
    assert f"After {DEFAULT_MAX_ROUNDS} rounds (`max_rounds`)" in text


def test_a_conversation_is_used_like_a_stream() -> None:
    used_like = (
        section("guides/tools.md", "Conversations")
        .partition("used like a stream")[2]
        .partition(". ")[0]
    )
    names = re.findall(r"`(\w+)\(\)`", used_like)
    assert len(names) == 5
    for name in names:
        assert getattr(anyio_writer.Conversation, name)
        assert getattr(anyio_writer.ChatCompletionStream, name)


def is_property(value: object) -> bool:
    return isinstance(value, property)


def test_the_error_table_is_all_there_are() -> None:
    documented = [
        code_in(name)[0] for name, _ in rows("reference/errors.md", "When they are raised")
    ]
    actual = [
        name
        for name, value in vars(anyio_writer).items()
        if isinstance(value, type) and issubclass(value, WriterError)
    ]
    assert sorted(documented) == sorted(actual)


def test_the_error_table_says_which_status_is_which_class() -> None:
    for name, when in rows("reference/errors.md", "When they are raised"):
        if status := re.match(r"(\d{3})\b", when):
            cls = anyio_writer.errors.status_error_class(int(status[1]))
            assert cls.__name__ == code_in(name)[0]


def test_the_time_limits_are_the_defaults() -> None:
    documented = {
        code_in(name)[0]: default
        for name, default, _ in rows("reference/settings.md", "Time limits")
    }
    actual = {name: f"{value:g}" if value else "None" for name, value in fields_of(Timeouts())}
    assert documented == actual
    complete = section("reference/errors.md", "When an answer is complete")
    assert f"for at most {StreamSettings().end_grace:g} seconds (`end_grace`)" in complete


def fields_of(struct: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    for name in struct.__struct_fields__:
        yield name, getattr(struct, name)


def test_the_linter_before_a_commit_is_the_one_of_tox() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pinned = re.findall(r"additional_dependencies: \[(.*)\]", hooks)
    assert {*pinned} == {*groups["dependency-groups"]["lint"]}


def test_every_way_to_the_result_is_there() -> None:
    named = " ".join(
        name for name, _ in rows("reference/streams.md", "What you can do with a stream")
    )
    for name in re.findall(r"(?:stream|`)\.(\w+)", named):
        assert hasattr(anyio_writer.ChatCompletionStream, name), name


@pytest.mark.parametrize("name", ["demo-command", "test-command", "whole-command"])
def test_the_commands_are_marked(name: str) -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count(f"\n<!-- {name} -->\n```sh\n") == 1
    command = text.partition(f"<!-- {name} -->\n```sh\n")[2].partition("\n```\n")[0]
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && ")


def test_the_exit_codes_are_the_command_s() -> None:
    documented = rows("reference/command-line.md", "Exit codes")
    assert [(int(code), meaning) for code, meaning in documented] == [*MEANINGS.items()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target


def test_what_it_says_of_the_sdk_s_names() -> None:
    for name in ("get_final_completion", "until_done", "current_completion_snapshot", "close"):
        assert hasattr(anyio_writer.AsyncChatCompletionStream, name)
        assert hasattr(AsyncChatCompletionStream, name)
    assert writerai.DEFAULT_MAX_RETRIES == 7
    for name in [name for name in dir(writerai) if name.endswith("Error")]:
        assert hasattr(anyio_writer, name)


def test_what_it_says_of_the_sdk_s_response_format() -> None:
    chat = writerai.resources.AsyncChatResource
    assert "response_format" in inspect.signature(chat.parse).parameters
    assert "response_format" not in inspect.signature(chat.stream).parameters
    assert "response_format" in inspect.signature(anyio_writer.open_chat_stream).parameters


async def test_what_it_says_of_max_tokens() -> None:
    """All else that it says of the SDK is shown in tests/comparison."""
    async with ChatServer(text_reply(finish_reason="length")) as server:
        for module, raised in ((writerai, True), (anyio_writer, False)):
            async with (
                module.AsyncWriter(api_key="key", base_url=server.url) as client,
                client.chat.stream(
                    model="m", messages=[{"role": "user", "content": "Hello"}]
                ) as stream,
            ):
                with pytest.raises(writerai.LengthFinishReasonError) if raised else nullcontext():
                    await stream.get_final_completion()
            completion = stream.current_completion_snapshot
            assert completion.choices[0].finish_reason == "length"


# The map in docs/architecture.md.

ARCHITECTURE: Final = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PACKAGE: Final = ROOT / "anyio_writer"
ORDER: Final = (
    *(
        "errors",
        "numbers",
        "signatures",
        "generics",
        "uncopied",
        "protocol",
        "telemetry",
        "config",
        "structured",
        "request",
        "transport",
    ),
    *("streaming", "conversation", "open", "client", "relay", "cli"),
)


def test_the_map_names_every_module() -> None:
    tree = ARCHITECTURE.partition("\n## The map\n")[2].split("```")[1]
    named: set[str] = set()
    folder = ""
    for indent, name in re.findall(r"^( +)([\w/.]+) ", tree, re.MULTILINE):
        folder = folder if len(indent) > 2 else ""
        named.add(folder + name)
        if name.endswith("/"):
            folder = name
    actual = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or path.parent == PACKAGE
    }
    whole = ("testing/", "cli/")
    assert {name for name in actual if not name.startswith(whole)} == {
        name for name in named if not name.endswith("/")
    }
    assert named >= {*whole, "protocol/", "streaming/", "structured/"}


def imports_of(path: Path) -> Iterator[str]:
    """The names of the package that a module imports at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    parents = path.relative_to(PACKAGE.parent).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield ".".join([*base, name])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("part", [*ORDER, "testing"])
def test_imports_go_one_way(part: str) -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if part_of(path) == part]
    before = {*ORDER[: ORDER.index(part)]} if part in ORDER else set()
    allowed = {part, "_version", *before}
    if part == "cli":
        allowed |= {"testing", "__version__"}
    outside = {name.partition(".")[0] for path in paths for name in imports_of(path)}
    inside = {
        name.split(".")[1]
        for path in paths
        for name in imports_of(path)
        if name.startswith("anyio_writer.")
    }
    assert paths
    assert inside <= allowed
    if part == "protocol":
        assert not outside & {"anyio", "asyncio", "trio", "httpx", "httpx2", "time", "socket"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_what_is_not_imported() -> None:
    code = "import sys, anyio_writer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(anyio_writer.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "anyio_writer" in loaded
    unused = {"trio", "h11", "httpx2", "docstring_parser", "pydantic", "opentelemetry"}
    assert not {*loaded} & {*unused, "anyio_writer.testing", "anyio_writer.cli"}
