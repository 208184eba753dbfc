"""Sphinx settings."""

from pathlib import Path

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
html_title = f"sb3_dream {version}"
copybutton_prompt_text = "$ "
