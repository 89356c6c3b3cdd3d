"""Environments agree with pyproject.toml, and suffice for what the rules that use them import."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from faithful_sae import digest

ROOT = Path(__file__).parent.parent
ENVS = sorted((ROOT / "envs").glob("*.yaml"))
RULES = sorted((ROOT / "workflow/rules").glob("*.smk"))
OPTIONAL = {"triton"}  # torch brings its own where it is built for CUDA, and only there is it used
# Import names that are not their distribution's name.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "huggingface_hub": "huggingface-hub", "yaml": "pyyaml"}


def pinned(requirements: list[str]) -> dict[str, str]:
    """Distribution -> version; anything but an exact pin is an error."""
    pairs = [requirement.split("==") for requirement in requirements]
    assert all(len(pair) == 2 for pair in pairs), requirements
    return dict(pairs)


PROJECT = pinned(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def pip_pins(env: Path) -> dict[str, str]:
    dependencies = yaml.safe_load(env.read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return pinned(pip)


SNAKEMAKE_BRINGS = {"jsonschema", "pyyaml"}


def rule_blocks() -> dict[str, tuple[Path | None, Path]]:
    """rule -> (its env, its script), read from the rule files' text.

    A plan runs Snakemake, so it has Snakemake's own environment, which may hold nothing else.
    """
    found = {}
    for file in RULES:
        for rule in re.split(r"^(?=rule )", file.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"rule (\w+)", rule).group(1)
            paths = [
                re.search(rf'^    {directive}:\n +"(.+)"', rule, flags=re.MULTILINE)
                for directive in ("conda", "script")
            ]
            assert paths[1] and bool(paths[0]) != (name == "plan"), (
                f"{file.name}: rule {name} has no env or no script"
            )
            found[name] = tuple(path and (file.parent / path.group(1)).resolve() for path in paths)
    return found


def third_party(trees: list[ast.Module]) -> set[str]:
    """Distributions that these modules import, wherever in them."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    top = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"faithful_sae"}
    return {DISTRIBUTIONS.get(name, name) for name in top - OPTIONAL}


def imported_by(script: Path) -> set[str]:
    """Distributions that a script imports, itself and through the library."""
    trees = [ast.parse(script.read_text())]
    seen: set[Path] = set()
    for tree in trees:  # grows on the way
        for module in digest._imports(tree):
            new = [file for file in digest._files(module) if file not in seen]
            seen.update(new)
            trees += [ast.parse(file.read_text()) for file in new]
    return third_party(trees)


@pytest.mark.parametrize("env", ENVS, ids=lambda p: p.name)
def test_an_env_repeats_pins_of_the_project_and_invents_none(env):
    assert pip_pins(env).items() <= PROJECT.items()


@pytest.mark.parametrize("env", ENVS, ids=lambda p: p.name)
def test_an_env_takes_its_python_from_conda_forge_alone_and_pins_it(env):
    content = yaml.safe_load(env.read_text())
    assert content["channels"] == ["conda-forge"]
    conda = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    assert [re.match(r"(\w+)=[\d.]+$", entry).group(1) for entry in conda] == ["python", "pip"]
    assert conda[0].startswith("python=3.11.")


def test_the_versions_that_decide_results_and_commands_are_the_expected_ones():
    assert (PROJECT["torch"], PROJECT["snakemake"]) == ("2.13.0", "9.27.1")
    snakefile = (ROOT / "Snakefile").read_text()
    assert f'min_version("{PROJECT["snakemake"]}")' in snakefile


def test_every_script_belongs_to_a_rule_and_every_env_is_used():
    scripts = {script for _, script in rule_blocks().values()}
    assert scripts == {path.resolve() for path in (ROOT / "workflow/scripts").glob("*.py")}
    used = {env for env, _ in rule_blocks().values()} - {None}
    assert used == {path.resolve() for path in ENVS}


@pytest.mark.parametrize("rule", sorted(rule_blocks()))
def test_the_env_of_a_rule_holds_all_that_its_script_imports(rule):
    env, script = rule_blocks()[rule]
    missing = imported_by(script) - (pip_pins(env).keys() if env else SNAKEMAKE_BRINGS)
    assert not missing, f"{env} lacks {missing}, which {script.name} imports"


def test_the_project_pins_all_that_the_library_and_the_workflow_import():
    files = [*digest.LIBRARY.rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")]
    trees = [ast.parse(file.read_text()) for file in files]
    assert third_party(trees) <= PROJECT.keys()


def test_the_walk_over_imports_sees_late_and_indirect_ones():
    """`train_sae` reaches `transformers` only inside functions of a module it does not name."""
    imports = imported_by(ROOT / "workflow/scripts/train_sae.py")
    assert {"torch", "pyarrow", "polars", "transformers"} <= imports
    assert "matplotlib" not in imports and "jsonschema" not in imports


def test_no_profile_retrains_for_a_comment():
    """A profile that is named replaces the default one, so each must say it."""
    files = list((ROOT / "workflow/profiles").glob("*/config.yaml"))
    assert {"default", "slurm"} <= {file.parent.name for file in files}
    for file in files:
        profile = yaml.safe_load(file.read_text())
        assert profile["rerun-triggers"] == ["mtime", "params", "input", "software-env"], file
