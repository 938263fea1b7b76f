"""Sphinx builds these pages with `make docs`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

import trak  # noqa: E402  found by the line above

project = "trak"
author = copyright = "the trak authors"  # noqa: A001  Sphinx's name
version = release = trak.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "entries",
    "links",
    "mathml",
]
exclude_patterns = ["_build"]
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "trak"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"light_css_variables": {"color-code-background": "#f6f8fa"}}
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

highlight_language = "text"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4

default_role = "name"  # of _ext/entries.py
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "both"
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r"trak\.projectors\.triton_kernels"),  # importable only beside Triton
    # Without network there is no inventory of what others document; type variables and private bases have no entry.
    ("py:.*", r"(?!trak\b).*"),
    ("py:class", r"trak\.(\w+\.)*(_\w+|[A-Z])"),
    ("py:.*", r"trak\._utils\..*"),  # not public
]
