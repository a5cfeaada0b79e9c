"""The tool calls of one stream, run while it streams."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from msgspec import structs

from ..errors import InvalidParameterError, StreamClosedError, WriterError
from ..numbers import check_count
from ..protocol.events import FunctionToolCallArgumentsDoneEvent
from ..protocol.history import synthetic_id
from ..request.encoding import encode_foreign
from ..telemetry.observer import Observers, ToolEnded, ToolStarted
from ..uncopied import Uncopied
from .changing import Changing
from .channel import Batch
from .lifetime import Lifetime

if TYPE_CHECKING:
    from ..request.params import Message
    from ..structured.tools import FunctionTool
    from .stream import ChatCompletionStream

OnError: TypeAlias = Literal["reply", "raise"]

DEFAULT_LIMIT: Final = 8
"""How many calls of one stream run at once: few models make more, and each may take a thread."""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a tool call.

    Attributes:
        index: The position of the call among those of its choice.
        name: The function that the model called.
        tool_call_id: The ID of the call; "" if the server sent none.
        arguments: The arguments of the call, as JSON text.
        value: What the function returned; None if it failed.
        error: Why there is no value, or why it has no JSON form.
        content: What is sent to the model: a text as it is, another value as JSON, or the error.
    """

    index: int
    name: str
    tool_call_id: str
    arguments: str = ""
    value: Any = None
    error: Exception | None = None
    content: str = ""

    def message(self) -> Message:
        """The ``tool`` message that answers the call, for the next request's ``messages``."""
        return {
            "role": "tool",
            "tool_call_id": self.tool_call_id or synthetic_id(self.index),
            "name": self.name,
            "content": self.content,
        }


class ToolRunner(Changing):
    """Runs the tool calls of a stream and keeps their results, which ``ToolRuns`` gives out."""

    def __init__(
        self,
        tools: Mapping[str, FunctionTool[..., Any]],
        *,
        limit: int | None,
        on_error: OnError,
        lifetime: Lifetime,
        until_ended: Callable[[], Awaitable[None]],
        stream: ChatCompletionStream[Any],
        observers: Observers | None,
    ) -> None:
        check_tool_options(limit, on_error)
        super().__init__()
        self._tools = tools
        self._limit = math.inf if limit is None else limit
        self._on_error = on_error
        self._lifetime = lifetime
        self._until_ended = until_ended
        self._stream = stream
        self._observers = observers
        # A tool sees the context variables of who called run_tools, not of the stream's own task.
        self._context = copy_context()
        self._queue: deque[FunctionToolCallArgumentsDoneEvent] = deque()  # waiting for the limit
        self._refused: list[FunctionToolCallArgumentsDoneEvent] = []  # cut off, and not run
        self.results: Final[list[tuple[int, ToolResult]]] = []
        """Of each call its choice and what came of it, in the order of their ends."""
        self._scopes: set[anyio.CancelScope] = set()  # of the calls that run
        self._is_broken_off = False  # not all calls will have a result

    def __repr__(self) -> str:
        return (
            f"<ToolRuns: {len(self._scopes)} running, {len(self._queue)} waiting, "
            f"{len(self.results)} ended>"
        )

    def results_of(self, choice_index: int) -> list[ToolResult]:
        """What came of a choice's calls, in the order of the calls."""
        mine = [result for choice, result in self.results if choice == choice_index]
        if not all(result.tool_call_id for result in mine):
            # The ids may have come when the calls were running already.
            ids = {
                call.index: call.id
                for choice in self._stream.current_completion_snapshot.choices
                if choice.index == choice_index
                for call in choice.message.tool_calls or ()
            }
            mine = [structs.replace(each, tool_call_id=ids[each.index]) for each in mine]
        return sorted(mine, key=lambda result: result.index)

    async def until_done(self) -> None:
        """Wait for the end of the stream and of all calls."""
        await self._until_ended()
        while not (self._is_idle or self._is_broken_off):
            await self.wait_for_change()
        if self._is_broken_off:
            await checkpoint()  # perhaps this task is being cancelled with the tools
            raise StreamClosedError("The stream was left before its tool calls had ended.")

    async def until_more(self, count: int) -> None:
        """Wait until there are more results than these, or will never be."""
        self._lifetime.demand()
        while len(self.results) == count and not (self._lifetime.has_ended and self._is_idle):
            await self.wait_for_change()

    @property
    def _is_idle(self) -> bool:
        return not self._scopes and not self._queue

    # Running them.

    def take(self, events: Batch) -> None:
        """Run the calls that are done by these events, now or when the limit lets them."""
        self._add(each for each in events if type(each) is FunctionToolCallArgumentsDoneEvent)

    def refuse(self, calls: Iterable[FunctionToolCallArgumentsDoneEvent]) -> None:
        """Let these calls fail without running them: they were cut off."""
        self._refused += calls
        self._add(self._refused)

    def _add(self, calls: Iterable[FunctionToolCallArgumentsDoneEvent]) -> None:
        if not self._is_broken_off:
            self._queue.extend(calls)
            self._start_some()

    def end(self) -> None:
        """No more calls will come: the stream has ended."""
        self.notify()

    def cancel(self) -> None:
        """Cancel the calls that run, and drop those that wait."""
        if not self._is_idle:
            self._is_broken_off = True
            self._queue.clear()
            for scope in self._scopes:
                scope.cancel()
            self.notify()

    def _start_some(self) -> None:
        while self._queue and len(self._scopes) < self._limit:
            call = self._queue.popleft()
            scope = anyio.CancelScope()
            self._scopes.add(scope)
            run = partial(self._run, call, scope)
            self._context.run(self._lifetime.start_tool, run, f"tool {call.name}")

    async def _run(
        self, call: FunctionToolCallArgumentsDoneEvent, scope: anyio.CancelScope
    ) -> None:
        result: ToolResult | None = None
        try:
            with scope:
                is_run = call.name in self._tools and call not in self._refused
                if self._observers is not None and is_run:
                    result = await self._answer_observed(call, self._observers)
                else:
                    result = await self._answer(call)
        finally:
            self._scopes.discard(scope)
            if result is None:
                self._is_broken_off = True
            else:
                self.results.append((call.choice_index, result))
            self.notify()
        self._start_some()

    async def _answer_observed(
        self, call: FunctionToolCallArgumentsDoneEvent, observers: Observers
    ) -> ToolResult:
        """Run a call between two calls of its observers, all in one task and one context."""
        result, error = None, None
        observers.notify(ToolStarted(stream=self._stream, call=call))
        try:
            result = await self._answer(call)
        except BaseException as exc:
            error = exc
            raise
        else:
            error = result.error
            return result
        finally:
            observers.notify(ToolEnded(stream=self._stream, call=call, result=result, error=error))

    async def _answer(self, call: FunctionToolCallArgumentsDoneEvent) -> ToolResult:
        value, error = None, None
        try:
            value = await self._call(call)
            content = _content_of(value, call.name)
        except Exception as exc:
            if self._on_error == "raise":
                raise
            error, content = exc, f"Error: {_what_went_wrong(exc)}"
        return ToolResult(
            index=call.index,
            name=call.name,
            tool_call_id=call.tool_call_snapshot_id,
            arguments=call.arguments,
            value=value,
            error=error,
            content=content,
        )

    async def _call(self, call: FunctionToolCallArgumentsDoneEvent) -> Any:
        if call in self._refused:  # the model gets an error, and may call again
            raise WriterError(
                f"The call of {call.name} was cut off. Its arguments are incomplete, so it was not "
                "run."
            )
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            raise WriterError(f"There is no function {call.name!r}. The functions are: {known}.")
        args, kwargs = tool.bind(tool.decode(call.arguments))
        await checkpoint_if_cancelled()  # what is no longer wanted does not begin
        try:
            if tool.is_async:
                return await tool(*args, **kwargs)
            (value,) = await anyio.to_thread.run_sync(
                partial(_called, tool, args, kwargs),
                # Nothing can stop a thread, and leaving must not wait for it.
                abandon_on_cancel=True,
                # The limit is kept above. The threads that a process shares for files and the
                # like are not to be used up by tools, nor those of one stream by another's.
                limiter=anyio.CapacityLimiter(1),
            )
            # Behind a decorator that is no coroutine function an async one looks like any other.
            return await value if inspect.isawaitable(value) else value
        except anyio.get_cancelled_exc_class() as exc:
            if _is_being_cancelled():
                raise
            raise WriterError(f"{call.name} waited for something that was cancelled.") from exc


class ToolRuns(Uncopied):
    """The tool calls of a stream. Made by ``ChatCompletionStream.run_tools()``, which runs them.

    ``results()`` and ``messages()`` wait for the end of the stream and of all calls. You can call
    them several times, from several tasks, and after the block. They raise the stream's error, if
    it failed.

    Raises:
        StreamClosedError: The stream was left or closed before its answer was complete, or before
            all calls had ended.
    """

    __slots__ = ("_runner",)

    _copy_instead = "The results can be."

    def __init__(self, runner: ToolRunner) -> None:
        self._runner = runner

    def __repr__(self) -> str:
        return repr(self._runner)

    async def results(self, choice_index: int = 0) -> list[ToolResult]:
        """Return the results of a choice's calls, in the order of the calls.

        This waits for the end of the stream and of all calls. If the calling task has iterated over
        the stream, the events that it has not read are discarded, since nobody else would.
        """
        await self._runner.until_done()
        return self.results_so_far(choice_index)

    async def messages(self, choice_index: int = 0) -> list[Message]:
        """Return the results as ``tool`` messages. They follow the message with the calls."""
        return [result.message() for result in await self.results(choice_index)]

    def results_so_far(self, choice_index: int = 0) -> list[ToolResult]:
        """Return the results of the calls that have ended so far, in the order of the calls."""
        return self._runner.results_of(choice_index)

    async def results_after(self, count: int) -> list[ToolResult]:
        """Return all results but the first ``count``, of all choices, in the order of their ends.

        This waits until there is one. The list is empty if there will be none. Unlike
        ``results()``, it discards no events and raises nothing.
        """
        await self._runner.until_more(count)
        return [result for _, result in self._runner.results[count:]]


def _is_being_cancelled() -> bool:
    """Whether the cancellation that this task has caught is its own.

    On asyncio a task or a future that somebody else has cancelled raises the same in who awaits
    it. Let through, it would end the stream's task group, and the block with it, without a word.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return True
    from asyncio import current_task  # noqa: PLC0415 - it runs: trio cancels nothing but scopes

    task = current_task()
    return task is None or task.cancelling() > 0


def _called(tool: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any]:
    """What a function returns, in a tuple: trio takes no coroutine from a thread."""
    return (tool(*args, **kwargs),)


def check_tool_options(
    limit: int | None, on_error: str, *, names: tuple[str, str] = ("limit", "on_error")
) -> None:
    """Check the options of ``run_tools``, under the names that the caller used.

    Raises:
        InvalidParameterError: One is invalid.
    """
    check_count(names[0], limit, InvalidParameterError, optional=True)
    if on_error not in get_args(OnError):
        raise InvalidParameterError(f'{names[1]} must be "reply" or "raise", not {on_error!r}.')


def _content_of(value: Any, name: str) -> str:
    """A tool's result as it is sent to the model."""
    try:
        if isinstance(value, str):
            value.encode()  # half a surrogate pair cannot be sent
            return str.__str__(value)
        return msgspec.json.encode(value, enc_hook=encode_foreign).decode()
    except Exception as exc:  # a type without JSON form, a hook of a type's own, endless nesting
        raise WriterError(f"What {name} returned has no JSON form: {exc}") from exc


def _what_went_wrong(exc: BaseException) -> str:
    """An error as it is sent to the model: its text, and never where it happened."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return "; ".join(map(_what_went_wrong, group.exceptions))
    try:
        text = str(exc).encode(errors="replace").decode()
    except Exception:  # its class's own code
        text = ""
    if isinstance(exc, WriterError):
        return text
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
