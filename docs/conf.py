"""The site: `python -m sphinx -W --keep-going docs docs/_build`, with nothing fetched while it is built or read."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import tinygen  # noqa: E402  (the checkout's own, found through the line above)

project = "tinygen"
copyright = "the tinygen authors, MIT licence"
release = version = tinygen.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_design",
    # our own, in docs/_ext
    "drawn_pictures",
    "offline_math",
    "languages",
    "source_pages",
    "api_pages",
    "formula_index",
    "house",
]
exclude_patterns = ["_build", "_ext", "_pictures/README*", "tests"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# `$` in included source is not the start of a formula; what is one, MyST has marked already.
mathjax3_config = {
    "tex": {
        "inlineMath": [["\\(", "\\)"]],
        "displayMath": [["\\[", "\\]"]],
        "macros": {"E": "\\mathbb{E}", "R": "\\mathbb{R}", "N": "\\mathcal{N}", "KL": "\\operatorname{KL}"},
    }
}

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # kind=DDPMSampler, as the source writes it
autodoc_typehints = "none"
numpydoc_show_class_members = False  # autodoc shows each in full
# A parameter that is not there, one without a description, a result without one, two empty lines. Not the order of
# parameters (PR03): those that are refused, or that mean the same, are told of together.
numpydoc_validation_checks = {"PR02", "PR07", "RT03", "GL03"}

html_theme = "furo"
html_title = "tinygen"
html_static_path = ["_static"]
html_css_files = ["tinygen.css"]
html_js_files = [("finder.js", {"defer": "defer", "priority": 100})]  # before MathJax, which takes the TeX away
html_copy_source = False
html_search_language = "en_ja"  # docs/_ext/languages.py
html_show_sphinx = False
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
