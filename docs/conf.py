"""Sphinx, `make docs`: the library's docstrings as pages, in docs/_build."""

import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SOURCE))

project = "faithful_sae"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.apidoc"]
apidoc_modules = [
    {"path": str(SOURCE / "faithful_sae"), "destination": "api", "separate_modules": True}
]
autodoc_member_order = "bysource"
# A figure of the package figures may have the name of the module that draws it.
autodoc_default_options = {"ignore-module-all": True}
default_role = "code"  # `W_dec` is a name
html_theme_options = {"nosidebar": True, "page_width": "auto"}
