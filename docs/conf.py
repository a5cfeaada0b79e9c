"""How Sphinx builds the site: ``tox -e docs``."""

# ruff: noqa: INP001, ARG001, D103 - Sphinx runs this file and says what functions take.

from importlib.metadata import version as version_of
from typing import Any

from sphinx.domains.python import PyObject

project = "anyio-writer"
author = "The anyio-writer contributors"
copyright = author  # noqa: A001 - Sphinx calls it that
release = version = version_of("anyio-writer")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
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
toc_object_entries_show_parents = "hide"

highlight_language = "none"  # a block without a language is no Python
html_theme = "furo"
html_title = f"anyio-writer {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"

# Classes that users get and do not make: how they are made is of no use to anybody.
GIVEN = {
    *("Chat", "ChatCompletionStream", "Subscription", "Conversation", "ToolRuns", "ToolResult"),
    *("FunctionTool", "ResponseType", "Timings", "RecordedConnection", "RecordedRequest"),
    *("RelayedStream", "RelayedConversation", "RelayStatus"),
}


def hide_constructor(
    app: object, what: str, name: str, obj: object, options: object, *given: str | None
) -> tuple[str, None] | None:
    return ("", None) if what == "class" and name.rpartition(".")[2] in GIVEN else None


def setup(app: Any) -> None:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # which is what Python calls them
    app.connect("autodoc-process-signature", hide_constructor)
