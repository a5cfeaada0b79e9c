"""Random streams, and what must come of them by a model that is as simple as can be.

A stream is a script of entries, each saying what one chunk brings for one choice. ``wire`` writes
it down in a dialect, ``Model`` says what the events and the completion must be. The model joins
strings at once, copies everything, and knows which call a piece belongs to because the script says
so; nothing of the library is used in it.
"""

import copy
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hypothesis import strategies as st

Dialect = Literal[
    "index",
    "repeated",
    "no index",
    "id first",
    "index 0, id first",
    "index 0, id each",
    "from one",
    "minus one",
    "sparse",
    "two indices",
    "one id, no index",
    "new ids, no index",
]
Habit = Literal["one id", "new ids", "numeric ids", "index as text", "{} first", "twice"]
"""What a server does besides, whatever its dialect."""
ANY_ORDER: Final[tuple[Dialect, ...]] = (
    "index",
    "repeated",
    "no index",
    "from one",
    "minus one",
    "sparse",
)
"""Dialects in which the pieces of several calls may be interleaved."""
ONE_BY_ONE: Final[tuple[Dialect, ...]] = (
    "id first",
    "index 0, id first",
    "index 0, id each",
    "two indices",
    "one id, no index",
    "new ids, no index",
)
WITH_HABITS: Final[tuple[Dialect, ...]] = ("index", "repeated", "from one", "minus one", "sparse")
"""Dialects with an index of its own for each call."""


@dataclass
class CallPiece:
    """A piece of a tool call: which one, and what it adds."""

    number: int  # in the order in which the calls begin
    added: str
    opens: bool = False
    as_object: bool = False
    repeats: bool = False  # the whole call once more
    count: int = 0  # how many pieces of the call came before


@dataclass
class Entry:
    """What one chunk says about one choice."""

    choice: int
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    pieces: list[CallPiece] = field(default_factory=list)
    logprobs: list[str] | None = None
    refusal_logprobs: list[str] | None = None
    reason: str | None = None


@dataclass
class Choice:
    """The fixed properties of one choice."""

    dialect: Dialect
    names: list[str]
    habits: frozenset[Habit] = frozenset()


@dataclass
class Script:
    """A whole stream."""

    choices: dict[int, Choice]
    chunks: list[tuple[dict[str, Any], list[Entry]]]  # the chunk's own fields, and its choices


# Generating.

TEXT = st.text(alphabet='ab \u2028é\U0001f600"\\{}\n', max_size=5)
PIECES = st.one_of(st.none(), st.just(""), TEXT, TEXT, TEXT)
TOKENS = st.one_of(
    st.none(), st.none(), st.just([]), st.lists(st.sampled_from("xyz"), min_size=1, max_size=3)
)
ARGUMENTS = st.one_of(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, None, "}", '\\"', [{}]])).map(
        json.dumps
    ),
    st.just('{"a": "' + "x" * 12 + '"}'),
    st.just("[1, 2]"),
)
ODD_ARGUMENTS = st.sampled_from(
    ["", "12", "null", '{"a": 1', "[", '{"a" 1}', "}", '"text"', '{"b": 2}{}']
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["c1", "c2", "", None]),
        "created": st.sampled_from([7, 8, None]),
        "model": st.sampled_from(["m1", "m2", "", None]),
        "system_fingerprint": st.sampled_from(["v1", "v2", "", None]),
        "service_tier": st.sampled_from(["s1", "s2", None]),
        "usage": st.sampled_from([None, None, {"total_tokens": 1}, {"total_tokens": 2}]),
    },
)


def cut(draw: st.DrawFn, text: str, most: int = 4) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=most - 1)))
    places = [0, *cuts, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def is_whole(text: str) -> bool:
    """Whether a text is an object, array or string of JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return text.lstrip()[:1] in {"{", "[", '"'}


CUT_SHORT: Final = {"length", "content_filter"}


@st.composite
def drawn_habits(draw: st.DrawFn, dialect: Dialect, *, may_repeat: bool) -> frozenset[Habit]:
    if dialect not in WITH_HABITS or draw(st.booleans()):
        return frozenset()
    habits: set[Habit] = set()
    ids: list[Habit | None] = [None, "one id", "numeric ids", "new ids"]
    if (kind := draw(st.sampled_from(ids))) is not None:
        habits.add(kind)
    others: tuple[Habit, ...] = ("index as text", "{} first", "twice")
    if dialect == "repeated" and kind == "new ids":
        others = others[:1]  # a new id and a name behind an object are the next call
    habits |= {habit for habit in others if draw(st.booleans())}
    return frozenset(habits if may_repeat else habits - {"twice"})


@st.composite
def choice_scripts(  # noqa: PLR0912, PLR0915 - one choice from its start to its end
    draw: st.DrawFn, index: int, *, plain: bool = False
) -> tuple[Choice, Any]:
    """One choice: its properties and its entries, in order."""
    count = draw(st.integers(0, 3))
    any_order = plain or draw(st.booleans())
    dialect = draw(st.sampled_from(ANY_ORDER if any_order else ONE_BY_ONE))
    if plain:
        dialect = "index"
    is_odd = dialect == "index" and not plain and draw(st.booleans())
    habits = frozenset() if plain else draw(drawn_habits(dialect, may_repeat=not is_odd))
    odd = st.one_of(ARGUMENTS, ODD_ARGUMENTS) if is_odd else ARGUMENTS
    names = [draw(st.sampled_from(["f", "g"])) for _ in range(count)]
    if dialect == "one id, no index":  # so nothing else tells the calls apart
        names = ["f", "g", "f"][:count]
        odd = odd.filter(lambda text: text != "{}")
    entries: list[Entry] = []
    for _ in range(draw(st.integers(0, 5))):
        entry = Entry(index, content=draw(PIECES), logprobs=draw(TOKENS))
        entry.reasoning = draw(st.sampled_from([None, None, "", "hm"]))
        if not plain or draw(st.booleans()):
            entry.refusal = draw(st.one_of(st.none(), st.none(), PIECES))
            entry.refusal_logprobs = draw(TOKENS)
        entries.append(entry)
    calls: list[list[CallPiece]] = []
    for number in range(count):
        arguments = draw(odd)
        if not plain and draw(st.integers(0, 5)) == 0 and arguments.startswith("{}") is False:
            parts = [CallPiece(number, arguments, opens=True)]
            if is_whole(arguments) and arguments.startswith("{"):
                parts[0].as_object = True
                parts[0].added = json.dumps(json.loads(arguments), separators=(",", ":"))
        else:
            parts = [CallPiece(number, part) for part in cut(draw, arguments)]
            if plain or draw(st.booleans()):
                parts.insert(0, CallPiece(number, ""))
            parts[0].opens = True
        if dialect == "repeated" and "new ids" in habits:
            # Behind whole arguments, a new id and a name begin the next call.
            parts = [part for part in parts if part.added or part.opens]
        if "{} first" in habits:
            parts[0].opens = False
            parts.insert(0, CallPiece(number, "{}", opens=True, as_object=draw(st.booleans())))
        if "twice" in habits:
            again = CallPiece(number, arguments, repeats=True)
            again.as_object = arguments.startswith("{") and draw(st.booleans())
            parts.append(again)
        for place, part in enumerate(parts):
            part.count = place
        calls.append(parts)
    if any_order:
        # Opened in order, their pieces shuffled otherwise.
        queue: list[CallPiece] = []
        waiting = [list(parts) for parts in calls]
        opened = 0
        while any(waiting):
            ready = [n for n, parts in enumerate(waiting) if parts and n <= opened]
            number = draw(st.sampled_from(ready))
            if plain:  # one after the other
                number = ready[0]
            queue.append(waiting[number].pop(0))
            opened = max(opened, number + 1)
    else:
        queue = [part for parts in calls for part in parts]
    while queue:
        size = 1 if plain else draw(st.integers(1, 3))
        entry = Entry(index, pieces=queue[:size])
        if not plain and draw(st.booleans()):
            entry.content = draw(PIECES)
        entries.append(entry)
        del queue[:size]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "odd"]))
    if not plain and entries and draw(st.booleans()):
        entries[-1].reason = reason
    else:
        entries.append(Entry(index, reason=reason))
    if not plain:
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):  # it will not stop
            late = Entry(index, content=draw(PIECES), refusal=draw(PIECES), logprobs=draw(TOKENS))
            late.reason = draw(st.sampled_from([None, "", "null", "stop", "length"]))
            entries.append(late)
        for entry in entries:
            if entry.reason is None:
                entry.reason = draw(st.sampled_from([None, None, None, "", "null"]))
    return Choice(dialect, names, habits), entries


@st.composite
def scripts(draw: st.DrawFn, *, plain: bool = False) -> Script:
    """A whole stream. ``plain``: of the kind every client understands."""
    count = draw(st.integers(1, 3))
    indices = list(range(count)) if plain else draw(st.permutations(range(count)))
    drawn = {index: draw(choice_scripts(index, plain=plain)) for index in indices}
    waiting = {index: list(entries) for index, (_, entries) in drawn.items()}
    chunks: list[tuple[dict[str, Any], list[Entry]]] = []
    if plain:  # in the first chunks, one choice after the other appears
        chunks += [({}, [Entry(index, content="")]) for index in indices]
    while any(waiting.values()):
        fields = {} if plain else draw(FIELDS)
        ready = [index for index, entries in waiting.items() if entries]
        size = 1 if plain else draw(st.sampled_from([0, 1, 1, 1, 2, 3]))
        entries = []
        for _ in range(size):
            index = draw(st.sampled_from(ready))
            if waiting[index]:
                entries.append(waiting[index].pop(0))
        chunks.append((fields, entries))
    if draw(st.booleans()):
        chunks.append(({"usage": {"total_tokens": 9}}, []))
    return Script({index: choice for index, (choice, _) in drawn.items()}, chunks)


# Writing down.


def token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.5}


def call_index(dialect: Dialect, number: int) -> int:
    """The index under which the completion must show a call."""
    shift = {"from one": number + 1, "minus one": number - 1, "sparse": number * 3 + 2}
    shift["two indices"] = number * 10
    return shift.get(dialect, number)


def wire_id(choice: Choice, number: int, count: int = 0) -> str | int:
    """The id in a piece of a call; in its first piece it is that of the call."""
    if "one id" in choice.habits or choice.dialect == "one id, no index":
        return "id"
    if "new ids" in choice.habits or choice.dialect == "new ids, no index":
        return f"id{number}.{count}"
    return number * 7 if "numeric ids" in choice.habits else f"id{number}"


ID_EACH: Final = {
    "no index",
    "index 0, id each",
    "repeated",
    "one id",
    "new ids",
    "one id, no index",
    "new ids, no index",
}
"""Dialects and habits with an id in each piece."""
NO_INDEX: Final = {"no index", "id first", "one id, no index", "new ids, no index"}


def write_piece(choice: Choice, piece: CallPiece) -> dict[str, Any]:
    dialect, number = choice.dialect, piece.number
    arguments: Any = json.loads(piece.added) if piece.as_object else piece.added
    function: dict[str, Any] = {"name": None, "arguments": arguments}
    wire: dict[str, Any] = {"id": None, "type": None, "function": function}
    if piece.opens or piece.repeats or ID_EACH & {dialect, *choice.habits}:
        wire["id"] = wire_id(choice, number, 0 if piece.repeats else piece.count)
    if piece.opens or piece.repeats or dialect == "repeated":
        wire["type"] = "function"
        function["name"] = choice.names[number]
        if piece.opens and not piece.added:
            function["arguments"] = None
    if dialect.startswith("index 0"):
        wire["index"] = 0
    elif dialect == "two indices":
        wire["index"] = number * 10 + (not piece.opens)
    elif dialect not in NO_INDEX:
        index = call_index(dialect, number)
        wire["index"] = str(index) if "index as text" in choice.habits else index
    return wire


def wire(script: Script) -> list[dict[str, Any]]:
    """The chunks as a server would send them."""
    chunks = []
    for fields, entries in script.chunks:
        choices = []
        for entry in entries:
            choice: dict[str, Any] = {"index": entry.choice, "finish_reason": entry.reason}
            delta: dict[str, Any] = {"content": entry.content, "refusal": entry.refusal}
            if entry.reasoning is not None:
                delta["reasoning_content"] = entry.reasoning
            if entry.pieces:
                described = script.choices[entry.choice]
                delta["tool_calls"] = [write_piece(described, piece) for piece in entry.pieces]
            if entry.logprobs is not None or entry.refusal_logprobs is not None:
                choice["logprobs"] = {
                    "content": entry.logprobs and [token(text) for text in entry.logprobs],
                    "refusal": entry.refusal_logprobs
                    and [token(text) for text in entry.refusal_logprobs],
                }
            choice["delta"] = {key: value for key, value in delta.items() if value is not None}
            choices.append(choice)
        chunks.append({**fields, "choices": choices})
    return chunks


# The model.

Expected = dict[str, Any]


@dataclass
class ModelChoice:
    """What has arrived for one choice."""

    index: int
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    logprobs: list[str] = field(default_factory=list)
    refusal_logprobs: list[str] = field(default_factory=list)
    calls: dict[int, Expected] = field(default_factory=dict)  # by the order of beginning
    empty: set[int] = field(default_factory=set)  # the calls that got {} and nothing else yet
    placeholders: set[int] = field(default_factory=set)  # those that were opened with it
    done: set[int] = field(default_factory=set)
    told: set[str] = field(default_factory=set)  # what else is done
    reason: str | None = None
    is_finished: bool = False

    def arguments(self, number: int) -> str:
        return self.calls[number]["arguments"] or ("{}" if number in self.empty else "")

    def is_whole(self, number: int) -> bool:
        """Whether nothing can come that belongs to a call's arguments."""
        arguments = self.calls[number]["arguments"]
        return is_whole(arguments) if arguments else number in self.empty - self.placeholders

    def may_come(self, number: int) -> bool:
        """Whether the arguments of a call may still come."""
        arguments = self.calls[number]["arguments"]
        if arguments.strip() or number in self.empty - self.placeholders:
            return arguments in {'{"a": 1', "["}  # of the odd ones; others are cut only in between
        return True

    def is_cut_off(self, number: int) -> bool:
        """Whether arguments stop in the middle, or the model was stopped before they began."""
        has_begun = bool(self.calls[number]["arguments"].strip())
        return self.may_come(number) and (has_begun or self.reason in CUT_SHORT)

    def snapshot(self) -> Expected:
        calls = [
            {**call, "arguments": self.arguments(number)} for number, call in self.calls.items()
        ]
        calls.sort(key=lambda call: call["index"])
        unknown = {"bytes": None, "top_logprobs": None}
        logprobs = {
            "content": [{**token(text), **unknown} for text in self.logprobs],
            "refusal": [{**token(text), **unknown} for text in self.refusal_logprobs],
        }
        logprobs = {key: value for key, value in logprobs.items() if value}
        return {
            "index": self.index,
            "content": self.content,
            "refusal": self.refusal,
            "reasoning_content": self.reasoning,
            "tool_calls": calls or None,
            "finish_reason": self.reason,
            "logprobs": logprobs or None,
        }


class Model:
    """The events and the completion that a script must give."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.choices: dict[int, ModelChoice] = {}
        self.fields: dict[str, Any] = {}
        self.is_reliable: bool | None = None  # whether finish reasons mean anything

    @property
    def is_complete(self) -> bool:
        return all(choice.is_finished for choice in self.choices.values())

    def completion(self) -> Expected:
        fields = {
            "id": self.fields.get("id", ""),
            "created": self.fields.get("created", 0),
            "model": self.fields.get("model", ""),
            "system_fingerprint": self.fields.get("system_fingerprint"),
            "service_tier": self.fields.get("service_tier"),
            "usage": self.fields.get("usage"),
        }
        choices = [self.choices[index].snapshot() for index in sorted(self.choices)]
        return copy.deepcopy({**fields, "choices": choices})

    def take(self, fields: dict[str, Any], entries: list[Entry]) -> list[Expected]:
        """The events of one chunk, each with its snapshot."""
        for name in ("id", "created", "model"):
            if fields.get(name):
                self.fields.setdefault(name, fields[name])
        for name in ("system_fingerprint", "service_tier", "usage"):
            if fields.get(name):
                self.fields[name] = fields[name]
        events = [event for entry in entries for event in self.take_entry(entry)]
        return [{"type": "chunk", "snapshot": self.completion()}, *events]

    def finish(self) -> list[Expected]:
        """The events that are due when nothing more comes."""
        events: list[Expected] = []
        for index in sorted(self.choices):

            def tell(kind: str, choice_index: int = index, **rest: Any) -> None:
                events.append(copy.deepcopy({"type": kind, "choice_index": choice_index, **rest}))

            self.all_done(self.choices[index], tell)
        return events

    def all_done(self, choice: ModelChoice, tell: Any, *, at_end: bool = True) -> None:
        for kind, whole in (
            ("reasoning.done", choice.reasoning),
            ("content.done", choice.content),
            ("refusal.done", choice.refusal),
            ("logprobs.content.done", choice.logprobs),
            ("logprobs.refusal.done", choice.refusal_logprobs),
        ):
            if whole and kind not in choice.told:
                choice.told.add(kind)
                tell(kind, whole=whole)
        for number in sorted(choice.calls, key=lambda number: choice.calls[number]["index"]):
            if not (choice.is_cut_off(number) if at_end else choice.may_come(number)):
                self.call_done(choice, number, tell)

    def take_entry(self, entry: Entry) -> list[Expected]:
        index = entry.choice
        choice = self.choices.setdefault(index, ModelChoice(index))
        events: list[Expected] = []

        def tell(kind: str, **rest: Any) -> None:
            events.append(copy.deepcopy({"type": kind, "choice_index": index, **rest}))

        for name in ("reasoning", "content", "refusal"):
            piece = getattr(entry, name)
            if piece or (piece is not None and name != "reasoning"):
                setattr(choice, name, (getattr(choice, name) or "") + piece)
            if piece:
                tell(f"{name}.delta", delta=piece, snapshot=getattr(choice, name))
        touched = self.take_pieces(choice, entry.pieces, tell)
        for kind, tokens, so_far in (
            ("content", entry.logprobs, choice.logprobs),
            ("refusal", entry.refusal_logprobs, choice.refusal_logprobs),
        ):
            if tokens:
                so_far.extend(tokens)
                tell(f"logprobs.{kind}.delta", tokens=tokens, snapshot=list(so_far))
        brings = bool(entry.reasoning or entry.content or entry.refusal or touched)
        if self.take_reason(choice, entry.reason, brings=brings) and self.is_reliable:
            self.all_done(choice, tell, at_end=False)
        else:
            for number in touched:
                last = max(choice.calls)
                if number != last and choice.is_whole(number):
                    self.call_done(choice, number, tell)
        return events

    def take_reason(self, choice: ModelChoice, reason: str | None, *, brings: bool) -> bool:
        """Returns whether the reason counts."""
        if reason in {"", "null"}:
            reason = None
        is_late = brings and choice.reason is not None
        if is_late:
            self.is_reliable = False
            choice.is_finished = False
        elif brings and reason is None and self.is_reliable is None:
            self.is_reliable = True
        if reason is None or choice.is_finished:
            return False
        choice.reason = reason
        choice.is_finished = True
        return True

    def take_pieces(self, choice: ModelChoice, pieces: list[CallPiece], tell: Any) -> list[int]:
        described = self.script.choices[choice.index]
        touched: list[int] = []
        for piece in pieces:
            if piece.opens:
                touched += sorted(choice.calls)[-1:]
                if piece.added == "{}":
                    choice.placeholders.add(piece.number)
                choice.calls[piece.number] = {
                    "index": call_index(described.dialect, piece.number),
                    "id": str(wire_id(described, piece.number)),
                    "name": described.names[piece.number],
                    "arguments": "",
                }
            call = choice.calls[piece.number]
            added = "" if piece.repeats else piece.added
            if added == "{}" and is_whole(call["arguments"] or "{}"):
                added = ""
                if not call["arguments"]:
                    choice.empty.add(piece.number)
            call["arguments"] += added
            if piece.opens or added:
                touched.append(piece.number)
                self.tell_piece(call, added, tell)
        return touched

    def tell_piece(self, call: Expected, added: str, tell: Any) -> None:
        tell(
            "tool_calls.function.arguments.delta",
            index=call["index"],
            name=call["name"],
            delta=added,
            snapshot=call["arguments"],
        )

    def call_done(self, choice: ModelChoice, number: int, tell: Any) -> None:
        if number not in choice.done:
            choice.done.add(number)
            if not choice.calls[number]["arguments"] and number in choice.empty:
                choice.calls[number]["arguments"] = "{}"
                self.tell_piece(choice.calls[number], "{}", tell)
            tell("tool_calls.function.arguments.done", **choice.calls[number])
