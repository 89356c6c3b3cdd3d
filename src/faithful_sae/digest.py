"""What a result depends on: digests of the library's code and of local folders.

Snakemake notices an edited script, never an edited module that the script imports. Rules therefore
carry `library_digest` of their modules as a param.
"""

import ast
import hashlib
from pathlib import Path

LIBRARY = Path(__file__).parent
WITHOUT_EFFECT = {"progress"}  # what is said about a job cannot change its result


def library_digest(*modules: str) -> str:
    """Digest of these modules and of all that they import from the library, 16 hex digits.

    Comments, docstrings and formatting do not count: they cannot change a result.

    Raises FileNotFoundError for a module that the library does not have.
    """
    trees: dict[Path, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in WITHOUT_EFFECT:
            continue
        for file in _files(name):
            if file not in trees:
                tree = _without_docstrings(ast.parse(file.read_text()))
                trees[file] = ast.unparse(tree)
                todo += _imports(tree)
    code = "".join(trees[file] for file in sorted(trees))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def folder_stamp(folder: Path) -> str:
    """What a local folder holds, by its files' names, sizes and times, 12 hex digits."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    stamps = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]


def _files(module: str) -> list[Path]:
    """The file of a module, or the files of a subpackage."""
    files = [LIBRARY / f"{module}.py", *sorted((LIBRARY / module).glob("*.py"))]
    found = [file for file in files if file.exists()]
    if not found:
        raise FileNotFoundError(
            f"{LIBRARY} has no module {module}; correct the rule that names it."
        )
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
