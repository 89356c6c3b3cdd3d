"""The pages of `make docs`: every module has one, and no docstring is malformed."""

import shutil
from pathlib import Path

from sphinx.cmd import build

ROOT = Path(__file__).parents[1]


def test_docstrings_become_pages_without_a_warning(tmp_path, capfd):
    source, pages = tmp_path / "source", tmp_path / "pages"  # pages of modules begin in the source
    source.mkdir()
    shutil.copy(ROOT / "docs/index.rst", source)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", str(ROOT / "docs")]
    assert build.main([*options, str(source), str(pages)]) == 0, capfd.readouterr().err
    library = ROOT / "src/faithful_sae"
    modules = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in library.rglob("*.py")
        if path.stem != "__init__"
    }
    assert modules <= {path.stem for path in (pages / "api").glob("*.html")}
    page = (pages / "api/faithful_sae.recovery.html").read_text()
    assert "|cosine|" in page  # as it was written, not taken for markup
