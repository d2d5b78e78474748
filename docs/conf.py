"""How the documentation is built: ``tox run -e docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from resilience import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the tables of figures are made where they are measured

project = "resilience"
author = "the resilience authors"
copyright = "2026, the resilience authors"  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["myst_parser", "generated"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated"]
nitpicky = True

html_theme = "furo"
html_title = f"resilience {version}"
html_static_path = ["_static"]
html_theme_options = {"source_directory": "docs/"}
