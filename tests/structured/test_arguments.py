"""The parsed arguments of calls, pickled and copied; alone and in completions."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest

import anyio_writer
from anyio_writer import FunctionTool, ParsedChatCompletion, chat_stream_from, function_tool
from tests.protocol.driving import called, chunk, frames, piece


@function_tool
def weather(city: str, days: int = 1) -> str:
    """The weather."""
    return city * days


def local_tool() -> FunctionTool[..., Any]:
    @function_tool
    def find(words: list[str]) -> str:
        return ""

    return find


async def completion_of(tool: FunctionTool[..., Any], arguments: str) -> ParsedChatCompletion[None]:
    call = piece(0, id="i", type="function", name=tool.name, arguments=arguments)

    async def source() -> Any:
        yield frames(called(call), chunk(reason="tool_calls"))

    async with chat_stream_from(source(), tools=[tool]) as stream:
        return await stream.get_final_completion()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
async def test_a_completion_with_calls_is_pickled_and_copied(protocol: int) -> None:
    for tool, text in ((weather, '{"city": "Lima"}'), (local_tool(), '{"words": ["a"]}')):
        completion = await completion_of(tool, text)
        (call,) = completion.choices[0].message.tool_calls or ()
        assert isinstance(call.function.parsed_arguments, tool.arguments_type)
        copies = [
            pickle.loads(pickle.dumps(completion, protocol)),  # noqa: S301 - just made
            copy.copy(completion),
            copy.deepcopy(completion),
        ]
        assert copies == [completion] * 3
        (copied,) = copies[2].choices[0].message.tool_calls
        assert type(copied.function.parsed_arguments) is tool.arguments_type


async def test_its_json_has_the_arguments_as_a_dict_that_the_tool_reads() -> None:
    completion = await completion_of(weather, '{"city": "Lima"}')
    back = msgspec.json.decode(msgspec.json.encode(completion), type=ParsedChatCompletion[None])
    (call,) = back.choices[0].message.tool_calls or ()
    assert call.function.parsed_arguments == {"city": "Lima", "days": 1}
    assert weather.decode(call.function.arguments) == weather.arguments_type(city="Lima")


def test_a_deep_copy_shares_nothing() -> None:
    arguments: Any = local_tool().decode('{"words": ["a"]}')
    copied = copy.deepcopy(arguments)
    copied.words.append("b")
    assert arguments.words == ["a"]


def test_a_process_that_has_not_made_the_tool_gets_the_same_fields() -> None:
    pickled = pickle.dumps(local_tool().decode('{"words": ["a"]}'))
    code = (
        "import pickle\n"
        f"first, second = (pickle.loads({pickled!r}) for _ in range(2))\n"
        "print(first, first == second, pickle.loads(pickle.dumps(first)) == second)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(anyio_writer.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "find(words=['a']) True True\n"


def test_a_process_that_can_import_the_tool_gets_its_type(tmp_path: Path) -> None:
    (tmp_path / "its_tools.py").write_text(
        "from anyio_writer import function_tool\n"
        "@function_tool\n"
        "def half(n: int) -> float: return n / 2\n"
    )
    env_code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport pickle\n"
    dump = "import its_tools; print(pickle.dumps(its_tools.half.decode('{\"n\": 1}')).hex())"
    load = (
        "value = pickle.loads(bytes.fromhex({}))\n"
        "import its_tools\n"
        "print(type(value) is its_tools.half.arguments_type)"
    )

    def ran(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", env_code + code],
            cwd=Path(anyio_writer.__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert ran(load.format(repr(ran(dump)))) == "True"


def test_types_of_tools_that_are_gone_are_not_kept() -> None:
    tool: Any = local_tool()
    arguments_type = weakref.ref(tool.arguments_type)
    del tool
    gc.collect()
    assert arguments_type() is None
