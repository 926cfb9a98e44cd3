"""A hook of mkdocs: $...$ and $$...$$ become MathML, which browsers draw themselves, without a script."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

# Code keeps its dollars: fenced and indented blocks, and `inline`.
_PARTS = re.compile(r"(^```.*?^```|^(?: {4}.*\n?)+|`[^`\n]*`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls with each page's text."""

    def mathml(match: re.Match[str]) -> str:
        code, block, inline = match.groups()
        if code is not None:
            return code
        return str(convert(block, display="block") if block else convert(inline))

    return _PARTS.sub(mathml, markdown)
