"""The site of these pages: `make docs` builds it with Sphinx, which reads Markdown by MyST. A link that leads nowhere is an error."""

project = "mk9p"
extensions = ["myst_parser"]
exclude_patterns: list[str] = []
html_theme = "alabaster"
html_theme_options = {"description": "Linux kernels as one file tree", "fixed_sidebar": True, "page_width": "1100px"}
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3
# pages link to files of the tree, which are not on the site; the last list of the index has every page; languages that the highlighter does not know
suppress_warnings = ["toc.multiple_toc_parents", "myst.xref_missing", "misc.highlighting_failure"]
