"""Sphinx settings."""

from pathlib import Path
from typing import Any

project = "sb3_dream"
author = "sb3_dream developers"
copyright = "2026, sb3_dream developers"
release = version = (Path(__file__).parent.parent / "sb3_dream" / "version.txt").read_text(encoding="utf8").strip()

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "sphinx_rtd_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"sb3_dream {version}"
copybutton_prompt_text = "$ "


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have Markdown's headings and tables, and shapes with a star, which Sphinx would not understand."""
    text, rows = [], []
    for line in [*(line.replace("*shape", r"\*shape") for line in lines), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            text += [".. list-table::", "   :header-rows: 1", ""]
            for row in (row for row in rows if not set("".join(row)) <= set("-: ")):
                text += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
            text.append("")
            rows = []
        text += [f".. rubric:: {line.removeprefix('## ')}", ""] if line.startswith("## ") else [line]
    lines[:] = text


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", to_rst)
