"""How Sphinx builds the site: ``tox -e docs``."""

# ruff: noqa: ARG001, D103, PLR0917 - Sphinx runs this file and says what functions take.

import re
from importlib.metadata import version as version_of
from typing import Any

from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer

project = "anyio-writer"
author = "The anyio-writer contributors"
copyright = author  # noqa: A001 - Sphinx calls it that
release = version = version_of("anyio-writer")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# Every heading is a target for links, which the build then checks.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
smartquotes_action = "D"  # dashes only: in docstrings, "" is the empty text
toc_object_entries_show_parents = "hide"

highlight_language = "none"  # a block without a language is no Python
html_theme = "furo"
html_title = f"anyio-writer {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"  # these come with furo
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"

# Classes that users get and do not make: how they are made is of no use to anybody.
GIVEN = {
    *("Chat", "ChatCompletionStream", "Subscription", "Conversation", "Timings"),
    *("ToolRuns", "ToolResult", "FunctionTool", "ResponseType", "ValueReader"),
    *("RelayedStream", "RelayedConversation", "RelayStatus"),
    *("RecordedConnection", "RecordedRequest"),
}
# Unions that have a name, which annotations lose when they are evaluated.
NAMED = {
    "ChunkEvent | ... | FunctionToolCallArgumentsDoneEvent": (
        "anyio_writer.ChatCompletionStreamEvent"
    ),
    "Reply | Callable[[RecordedRequest], Reply]": "anyio_writer.testing.AnyReply",
    "Callable[[RecordedRequest], Reply]": "anyio_writer.testing.ReplyBuilder",
    "Sleep | Hold | Cut | Reset | Stall | Raw": "anyio_writer.testing.Step",
}
# At run time, the fields of a request have the types that msgspec checks.
CHECKED = {
    "anyio_writer.ChatRequest.messages": ("Message", "anyio_writer.MessageParam"),
    "anyio_writer.ChatRequest.tools": ("TypedObject", "anyio_writer.Tool"),
    "anyio_writer.Message.content": ("TypedObject", "dict[str, Any]"),
}
# More options than this are fields of a request, and are described with `ChatRequest`.
MOST_OPTIONS = 15
MOST_OVERLOADS = 2


def pattern_of(union: str) -> str:
    """Matches a union whose names may have modules in front."""
    names = re.sub(r"\w+", r"~?(?:\\w+\\.)*\g<0>\\b", re.sub(r"([][|])", r"\\\1", union))
    return names.replace("...", ".*?")


PATTERNS = {pattern_of(union): f"~{name}" for union, name in NAMED.items()}


def with_names(types: str) -> str:
    for pattern, name in PATTERNS.items():
        types = re.sub(pattern, name, types)
    return types


def shorten_signature(
    app: object,
    what: str,
    name: str,
    obj: Any,
    options: object,
    arguments: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Show one signature for a function, and none for a class that users do not make."""
    if arguments is None:
        return None
    if what == "exception" or (what == "class" and name.rpartition(".")[2] in GIVEN):
        return "", None
    if what in {"function", "method"}:
        # Overloads for kinds of response format. The first one says enough.
        module = ModuleAnalyzer.for_module(obj.__module__)
        module.analyze()
        if len(overloads := module.overloads.get(obj.__qualname__, [])) > MOST_OVERLOADS:
            returned = str(overloads[0].return_annotation)
            del module.overloads[obj.__qualname__]
    if arguments.count("=...") > MOST_OPTIONS:
        arguments = re.sub(r", \w+=\.\.\.", "", arguments)[:-1] + ", **arguments)"
    return with_names(arguments), returned and with_names(returned)


def shorten_types(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Leave modules out of the types of attributes, as they are left out of signatures."""
    for number, line in enumerate(lines):
        if line.startswith(":vartype "):
            _, field, types = line.split(":", 2)
            if names := CHECKED.get(f"{name}.{field.removeprefix('vartype ')}"):
                types = re.sub(pattern_of(names[0]), names[1], types)
            types = re.sub(r"(?<![\w.~])(?:\w+\.)+\w+", r"~\g<0>", with_names(types))
            lines[number] = f":{field}:{types}"


def setup(app: Any) -> None:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # which is what Python calls them
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", shorten_types, priority=600)  # after napoleon
