"""The digest of a result's code changes with that code and with nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from faithful_sae import digest
from faithful_sae.digest import script_digest
from faithful_sae.state import State

ROOT = Path(__file__).parent.parent


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the library that a test may edit."""
    copy = tmp_path / "faithful_sae"
    shutil.copytree(digest.LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "LIBRARY", copy)
    return copy


def library_digest(*modules: str) -> str:
    """The digest of a script that imports these modules and does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text("".join(f"from faithful_sae import {m}\n" for m in sorted({*modules})))
        return script_digest(script)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1, f"{file.name} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1))


def test_it_does_not_depend_on_where_the_library_lies(library):
    copied = library_digest("train")
    digest.LIBRARY = Path(digest.__file__).parent  # monkeypatch puts it back
    assert library_digest("train") == copied
    assert len(copied) == 16 and int(copied, 16) >= 0


def test_comments_docstrings_and_formatting_do_not_count(library):
    before = library_digest("train")
    file = library / "sparse.py"
    edit(file, '"""Sparse products', '"""Some products')
    edit(file, '"""The k largest', '"""What is largest')
    edit(file, "GROUP = 4", "GROUP  =  (\n    4 )\n\n# a remark\n")
    assert library_digest("train") == before


def test_a_new_docstring_does_not_count(library):
    (library / "bare.py").write_text("class A:\n    def f(self):\n        return 1\n")
    before = library_digest("bare")
    (library / "bare.py").write_text(
        '"""M."""\nclass A:\n    """C."""\n    def f(self):\n        """F."""\n        return 1\n'
    )
    assert library_digest("bare") == before


@pytest.mark.parametrize(
    ("module", "file", "old", "new"),
    [
        ("sparse", "sparse.py", "GROUP = 4", "GROUP = 8"),
        ("train", "sparse.py", "GROUP = 4", "GROUP = 8"),  # from faithful_sae import sparse
        ("train", "shards.py", "BUFFER_BLOCKS = 4", "BUFFER_BLOCKS = 5"),
        ("train", "activations.py", "1024", "1025"),  # train -> shards -> activations
        ("figures", "figures/style.py", "def ", "def renamed_"),
        ("figures", "files.py", "def written_whole(", "def written_wholly("),
    ],
)
def test_an_edit_of_code_counts_wherever_it_is_imported_from(library, module, file, old, new):
    before = library_digest(module)
    edit(library / file, old, new)
    assert library_digest(module) != before


def test_an_edit_of_code_that_is_not_imported_does_not_count(library):
    before = library_digest("train")
    edit(library / "probing.py", "def ", "def renamed_")
    edit(library / "figures/style.py", "def ", "def renamed_")
    assert library_digest("train") == before


def test_how_a_config_is_refused_makes_no_model_anew_and_what_is_said_of_it_does(library):
    script = ROOT / "workflow/scripts/describe_model.py"
    before = script_digest(script)
    edit(library / "config.py", "holds no config.json", "has no config.json")
    assert script_digest(script) == before
    edit(library / "prepare.py", "def describe_model(", "def describe_some_model(")
    assert script_digest(script) != before


def test_an_import_inside_a_function_counts(library):
    (library / "late.py").write_text("def f():\n    from faithful_sae.files import written_whole\n")
    before = library_digest("late")
    edit(library / "files.py", "def written_whole(", "def written_wholly(")
    assert library_digest("late") != before


def test_a_script_counts_without_its_comments_and_docstring(tmp_path):
    script = tmp_path / "script.py"
    script.write_text('"""One."""\nx = 1\n')
    before = script_digest(script)
    script.write_text('"""Another."""\n# why\nx = 1\n')
    assert script_digest(script) == before
    script.write_text('"""Another."""\nx = 2\n')
    assert script_digest(script) != before


def test_several_modules_count_together_in_any_order(library):
    assert library_digest("train", "tidy") == library_digest("tidy", "train")
    assert library_digest("train", "train") == library_digest("train")
    before = library_digest("train", "statistics")
    edit(library / "statistics.py", "def ", "def renamed_")
    assert library_digest("train", "statistics") != before


@pytest.mark.parametrize("script", ["similarity", "draw_figures"])
def test_the_digest_is_the_same_in_every_process_and_every_locale(script):
    """Where sets of names and encodings differ; else a start of Snakemake would rerun all."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n"
    code += "from pathlib import Path; from faithful_sae.digest import script_digest\n"
    code += f"print(script_digest(Path({str(ROOT / 'workflow/scripts' / script)!r} + '.py')))"
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = [
        subprocess.check_output([sys.executable, "-c", code], env=os.environ | settings)
        for settings in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}, ascii_alone)
    ]
    assert len(set(found)) == 1


def test_an_unknown_module_is_an_error_that_names_it(library):
    with pytest.raises(FileNotFoundError, match="has no module trian; correct what"):
        library_digest("trian")


def test_every_rule_carries_the_digest_of_its_own_script_but_pinned_downloads():
    for file in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"^(?=rule )", file.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"rule (\w+)", rule).group(1)
            digests = re.findall(r'code_digest\("(\w+)"\)', rule)
            # What is pinned is checked; a plan is made anew whenever it is asked for.
            assert digests == ([] if name.startswith(("fetch_", "plan")) else [name])


def names_from(tree: ast.Module, modules: set[str]) -> set[str]:
    """What a file imports from these modules of the library."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module or "") in {f"faithful_sae.{name}" for name in modules}
        or (node.module == "faithful_sae" and alias.name in modules)
    }


def values_used(tree: ast.Module, names: set[str]) -> list[str]:
    """Where something called `name` or `name.method` gives a value that is put to use.

    Calls that stand alone, as statements, give none; an object that they are made on may be kept
    under a name, and handed to a function, of which the same must hold.
    """
    kept = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) in names
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    allowed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            allowed |= {id(part) for part in ast.walk(node.value.func)}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if {t.id for t in node.targets if isinstance(t, ast.Name)} & kept:
                allowed |= {id(node.value.func), *map(id, node.targets)}
        elif isinstance(node, ast.arg) and node.annotation:
            allowed |= {id(part) for part in ast.walk(node.annotation)}
    handed = [
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Name) and argument.id in kept
    ]
    allowed |= set(map(id, handed))
    return [
        f"line {node.lineno}: {node.id}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in names | kept and id(node) not in allowed
    ]


def test_what_counts_as_without_effect_gives_no_value_to_anything_that_counts():
    assert digest.WITHOUT_EFFECT
    library = {path.stem: path for path in digest.LIBRARY.glob("*.py")}
    counting = {path for stem, path in library.items() if stem not in digest.WITHOUT_EFFECT}
    for path in counting | set((ROOT / "workflow/scripts").glob("*.py")):
        tree = ast.parse(path.read_text())
        names = names_from(tree, digest.WITHOUT_EFFECT)
        if path.stem == "state":  # which asks where a job runs to decide what it goes on from
            names.discard("gpus")
        used = values_used(tree, names)
        assert not used, f"{path.name}, {', '.join(used)}: its module must count"


def test_every_script_with_state_fingerprints_its_params_and_its_inputs():
    with_state = {
        name
        for file in (ROOT / "workflow/rules").glob("*.smk")
        for name, rule in re.findall(r"^rule (\w+):\n((?:(?!^rule ).*\n)*)", file.read_text(), re.M)
        if re.search(r"^ +state=", rule, re.M)
    }
    assert {"generate_corpus", "extract_activations", "train_sae"} <= with_state
    for script in (ROOT / "workflow/scripts").glob("*.py"):
        states = [
            [*map(ast.unparse, node.args)]
            for node in ast.walk(ast.parse(script.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "State"
        ]
        assert len(states) == (script.stem in with_state), script.name
        for folder, params, inputs, *_ in states:
            assert re.fullmatch(r"Path\((snakemake\.)?params\.state\)", folder), script.name
            assert re.fullmatch(r"dict\((snakemake\.)?params\.items\(\)\)", params), script.name
            assert inputs == "map(Path, snakemake.input)", script.name


def test_the_state_of_a_job_whose_input_folder_holds_other_contents_is_ignored(tmp_path, capfd):
    """A folder is a model: equal names and sizes are not equal weights."""
    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/sub/weights").write_text("1")
    State(tmp_path / "state", {}, [tmp_path / "model"]).save({}, {"done": 7})
    assert State(tmp_path / "state", {}, [tmp_path / "model"]).load()[1] == {"done": 7}
    (tmp_path / "model/sub/weights").write_text("2")
    assert State(tmp_path / "state", {}, [tmp_path / "model"]).load() is None
    assert "model changed" in capfd.readouterr().err
    State(tmp_path / "state", {}, [tmp_path / "model"]).save({}, {"done": 7})
    for before, after in (("sub/weights", "sub/others"), ("sub", "bus")):
        (tmp_path / "model" / before).rename(tmp_path / "model" / after)
        assert State(tmp_path / "state", {}, [tmp_path / "model"]).load() is None
        State(tmp_path / "state", {}, [tmp_path / "model"]).save({}, {"done": 7})


def test_the_stamp_of_a_folder_changes_with_any_file_and_with_nothing_else(tmp_path):
    weights = tmp_path / "inner/weights"
    weights.parent.mkdir()
    weights.write_text("1")
    os.utime(weights, ns=(5, 5))
    stamps = [digest.folder_stamp(tmp_path)]
    assert digest.folder_stamp(tmp_path) == stamps[0]
    weights.write_text("12")
    os.utime(weights, ns=(5, 5))
    stamps.append(digest.folder_stamp(tmp_path))
    os.utime(weights, ns=(5, 6))  # as an edit that keeps the size leaves it
    stamps.append(digest.folder_stamp(tmp_path))
    weights.rename(tmp_path / "inner/other")
    stamps.append(digest.folder_stamp(tmp_path))
    (tmp_path / "inner").rename(tmp_path / "outer")
    stamps.append(digest.folder_stamp(tmp_path))
    assert len(set(stamps)) == 5
    shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copy2)
    assert digest.folder_stamp(tmp_path / "copy") == stamps[-1]  # wherever it lies
