"""`--use-conda` for real: the tiny study, each rule in its own pinned environment.

Snakemake hands its own libraries on to scripts, so it runs here from an environment that holds it
alone: what is missing from envs/*.yaml is then missing. The conda command is a stand-in
(tests/conda) that solves and links with conda's formats. It says nothing about conda-forge itself.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from conda_channel import SITE_PACKAGES, make_channel
from repository import copy_repository
from test_pins import ENVS, PROJECT, pip_pins, rule_blocks

STANDIN = Path(__file__).parent / "conda/bin"
RATTLER = "py-rattler==0.28.0"
# Libraries of environments that Snakemake brings along itself.
SNAKEMAKES_OWN = {"jsonschema", "packaging"}
# The tiny study has none of these: they need a network, belong to known features, or have no env.
NOT_TINY = {"fetch_archive", "fetch_model", "fetch_dataset", "convert_gguf"}
NOT_TINY |= {"draw_activations", "recovery", "plan", "features", "feature_facts"}
NOT_TINY |= {"export_sae", "export_corpus"}
NOT_TINY |= {"fetch_sae", "import_sae", "audit_sae", "similarity_of_pretrained"}
pytestmark = pytest.mark.workflow


def distributions(environment: Path) -> dict[str, str]:
    """Distribution -> version, of what is installed in an environment."""
    return {
        # After a plus sign torch says what it was built for.
        found.name.lower().replace("_", "-"): found.version.split("+")[0]
        for found in metadata.distributions(path=[str(environment / SITE_PACKAGES)])
    }


@pytest.fixture(scope="module")
def launcher(tmp_path_factory) -> Path:
    """An environment with Snakemake and the solver, and none of the libraries of the rules."""
    folder = tmp_path_factory.mktemp("launcher")
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    wanted = [f"snakemake=={PROJECT['snakemake']}", RATTLER]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """The folder that the rules' environments are made in."""
    return tmp_path_factory.mktemp("envs")


@pytest.fixture(scope="module")
def snakemake(launcher, prefix, tmp_path_factory) -> Callable[..., str]:
    """Runs Snakemake in a repository: standard output and error, with the exit status at the end.

    Nothing of the environment of the tests reaches it.
    """
    folder = tmp_path_factory.mktemp("conda")
    conda = {
        entry for env in ENVS for entry in yaml.safe_load(env.read_text())["dependencies"][:-1]
    }
    make_channel(folder / "channels/conda-forge", **dict(entry.split("=") for entry in conda))
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CONDA", "PYTHON", "VIRTUAL_ENV"))
    }
    environment = inherited | {
        "CONDA_CHANNEL_ALIAS": f"file://{folder}/channels/",
        "CONDA_PKGS_DIRS": f"{folder}/packages",
        "PATH": f"{STANDIN}:{launcher}/bin:{os.environ['PATH']}",
    }

    def run(repository: Path, *arguments: str) -> str:
        command = [launcher / "bin/snakemake", "--directory", "tests/tiny", "--cores", "2"]
        command += ["--use-conda", "--conda-prefix", prefix, "--show-failed-logs"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.stdout}{done.stderr}\nexit {done.returncode}"

    return run


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy with the tiny study cut to one seed and one SAE: fewer jobs, but of every rule."""
    repository = tmp_path_factory.mktemp("repository")
    copy_repository(repository)
    file = repository / "tests/tiny/config.yaml"
    config = yaml.safe_load(file.read_text())
    config |= {"seeds": [0], "saes": {"topk": config["saes"]["topk"]}, "shards": 1}
    file.write_text(yaml.safe_dump(config))
    return repository


@pytest.fixture(scope="module")
def created(snakemake, repository) -> str:
    output = snakemake(repository, "--conda-create-envs-only")
    assert output.endswith("exit 0"), output[-8000:]
    return output


@pytest.fixture(scope="module")
def envs(created, prefix) -> dict[Path, Path]:
    """Environment file -> the folder that was made of it. Snakemake leaves a copy beside each."""
    folders = {file.read_bytes(): file.with_suffix("") for file in prefix.glob("*.yaml")}
    return {file: folders[file.read_bytes()] for file in ENVS}


@pytest.fixture(scope="module")
def study(snakemake, repository, created) -> str:
    output = snakemake(repository)
    assert output.endswith("exit 0"), output[-8000:]
    return output


def test_the_launcher_has_no_library_of_a_rule(launcher):
    """Else the other tests would prove nothing."""
    libraries = set().union(*map(pip_pins, ENVS))
    assert distributions(launcher).keys() & libraries == SNAKEMAKES_OWN


@pytest.mark.parametrize("file", ENVS, ids=lambda path: path.name)
def test_an_environment_holds_its_pins(envs, file):
    installed = distributions(envs[file])
    assert pip_pins(file).items() <= installed.items()
    assert ("torch" in installed) == (file.stem == "torch")


def test_environments_are_made_before_any_job_and_once(created, study):
    assert created.count("Creating conda environment") == len(ENVS)
    assert "Finished jobid" not in created
    assert "Creating conda environment" not in study


def test_every_rule_runs_in_the_environment_that_it_names(study, envs):
    jobs = Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", study, flags=re.M))
    assert jobs.pop("all") == 1
    rules = rule_blocks()
    assert jobs.keys() == rules.keys() - NOT_TINY
    expected = Counter()
    for rule, count in jobs.items():
        # Once to ask for the version of Python, once for the script.
        expected[envs[rules[rule][0]].name] += 2 * count
    activated = re.findall(r"^Activating conda environment: \S*/(\w+)$", study, flags=re.M)
    assert Counter(activated) == expected


def test_a_library_that_an_environment_lacks_is_not_found_elsewhere(
    snakemake, repository, study, tmp_path
):
    copy = shutil.copytree(repository, tmp_path / "copy")
    plot = copy / "envs/plot.yaml"
    plot.write_text(re.sub(" +- polars==.*\n", "", plot.read_text()))
    output = snakemake(copy, "results/tiny/tables/norms.csv", "--forcerun", "summarise")
    assert "ModuleNotFoundError: No module named 'polars'" in output, output[-4000:]
    assert output.endswith("exit 1")
