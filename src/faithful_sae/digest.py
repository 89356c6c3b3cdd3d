"""What a result depends on: digests of the library's code and of local folders.

Snakemake notices an edited script, be it a comment in it, and never an edited module that the
script imports. Rules therefore carry `script_digest` as a param, and the profiles take Snakemake's
own watch over scripts out of `rerun-triggers`.
"""

import ast
import hashlib
from pathlib import Path

from faithful_sae.files import files_below

LIBRARY = Path(__file__).parent
# What is said of a job, where it runs and whether a config is refused cannot change its result.
WITHOUT_EFFECT = {"progress", "devices", "config"}


def script_digest(script: Path) -> str:
    """Digest of a script and of all that it imports from the library, 16 hex digits.

    Comments, docstrings and formatting do not count: they cannot change a result.

    Raises FileNotFoundError for a module that the library does not have.
    """
    code: dict[Path, str] = {}
    todo = [script]
    while todo:
        file = todo.pop()
        if file not in code:
            tree = _without_docstrings(ast.parse(file.read_bytes()))
            code[file] = ast.unparse(tree)
            for name in set(_imports(tree)) - WITHOUT_EFFECT:
                todo += _files(name)
    own = code.pop(script)  # first, since it may lie anywhere
    whole = "".join([own, *(code[file] for file in sorted(code))])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def folder_stamp(folder: Path) -> str:
    """What a local folder holds, by its files' names, sizes and times, 12 hex digits."""
    stamps = [
        (str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files_below(folder)
    ]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]


def _files(module: str) -> list[Path]:
    """The file of a module, or the files of a subpackage."""
    files = [LIBRARY / f"{module}.py", *sorted((LIBRARY / module).glob("*.py"))]
    found = [file for file in files if file.exists()]
    if not found:
        raise FileNotFoundError(f"{LIBRARY} has no module {module}; correct what imports it.")
    return found


def _imports(tree: ast.Module) -> list[str]:
    """Library modules that a module imports, wherever in it."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "faithful_sae":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faithful_sae."):
            names.append((node.module or "").split(".")[1])
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree
