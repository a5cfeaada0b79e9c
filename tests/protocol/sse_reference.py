"""The event-stream algorithm of the WHATWG HTML standard, as slow and literal as it stands there.

It takes the whole text at once and walks it character by character; nothing here is shared with
the decoder that is tested against it.
"""

from dataclasses import dataclass, field
from typing import Final

BOM: Final = "\ufeff"


@dataclass
class Reference:
    """What the standard's event source knows."""

    events: list[tuple[str, str, str]] = field(default_factory=list)  # name, data, last event id
    last_event_id: str = ""
    reconnection_time: int | None = None
    data: str = ""
    event_type: str = ""
    id_buffer: str = ""

    def line(self, line: str) -> None:
        if not line:
            self.dispatch()
        elif not line.startswith(":"):
            if ":" in line:
                name, value = line.split(":", 1)
                if value[:1] == " ":
                    value = value[1:]
            else:
                name, value = line, ""
            self.field(name, value)

    def field(self, name: str, value: str) -> None:
        if name == "event":
            self.event_type = value
        elif name == "data":
            self.data += value
            self.data += "\n"
        elif name == "id":
            if "\0" not in value:
                self.id_buffer = value
        elif name == "retry" and value and all(char in "0123456789" for char in value):
            self.reconnection_time = int(value, 10)

    def dispatch(self) -> None:
        self.last_event_id = self.id_buffer
        if self.data:
            name = self.event_type or "message"
            self.events.append((name, self.data[:-1], self.last_event_id))
        self.data = ""
        self.event_type = ""


def interpret(body: bytes) -> Reference:
    """Interpret a whole body."""
    source = Reference()
    text = body.decode("utf-8", errors="replace")
    place = 1 if text[:1] == BOM else 0
    line = ""
    while place < len(text):
        char = text[place]
        place += 1
        if char not in "\r\n":
            line += char
            continue
        if char == "\r" and place < len(text) and text[place] == "\n":
            place += 1
        source.line(line)
        line = ""
    return source  # a line without its end, and a block without its blank line, are dropped
