"""The crate of a study names every input, output and version, and follows RO-Crate's rules."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from faithful_sae.provenance import (
    LIBRARIES,
    digests,
    git_commit,
    library_versions,
    study_crate,
    write_plain_json,
)

ROOT = Path(__file__).parents[1]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study's folder with a table, made from a wheel and a model."""
    monkeypatch.chdir(tmp_path)
    files = {
        "results/mine/tables/summary.csv": "a,b\n",
        "resources/archives/text-1-py3-none-any.whl": "wheel",
        "resources/models/m@1/weights": "w",
        "resources/models/m@1/sub/tokenizer": "t",
        "resources/models/m@1/.hidden": "h",
    }
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    return Path("results/mine")


@pytest.fixture
def crate(study) -> dict[str, dict]:
    """The entities of its crate, by `@id`."""
    inputs = [Path("resources/models/m@1"), Path("resources/archives/text-1-py3-none-any.whl")]
    outputs = [study / "tables/summary.csv"]
    content = study_crate(study, inputs, outputs, {"torch": "2.13.0+cpu"}, by="c0ffee")
    write_plain_json(content, study / "ro-crate-metadata.json")
    content = json.loads((study / "ro-crate-metadata.json").read_text())
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(entities) == len(content["@graph"])
    return entities


def test_every_input_and_output_stands_in_it_with_its_digest(crate):
    found = {e["name"]: e["sha256"] for e in crate.values() if "sha256" in e}
    assert found == {
        "resources/archives/text-1-py3-none-any.whl": sha256("wheel"),
        "resources/models/m@1/sub/tokenizer": sha256("t"),
        "resources/models/m@1/weights": sha256("w"),
        "tables/summary.csv": sha256("a,b\n"),
    }


def test_the_run_leads_from_the_inputs_to_the_outputs_by_the_commit_and_its_libraries(crate):
    (run,) = [e for e in crate.values() if e["@type"] == "CreateAction"]
    assert len(run["object"]) == 3 and run["result"] == [{"@id": "tables/summary.csv"}]
    workflow = crate[run["instrument"]["@id"]]
    assert workflow["softwareVersion"] == "c0ffee"
    (library,) = (crate[one["@id"]] for one in workflow["softwareRequirements"])
    assert (library["name"], library["softwareVersion"]) == ("torch", "2.13.0+cpu")


def test_it_is_a_flat_graph_whose_references_lead_somewhere(crate, study):
    """What RO-Crate 1.1 requires (section by section: roc-validator, which needs a network)."""
    descriptor = crate["ro-crate-metadata.json"]
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = crate["./"]
    assert root["@type"] == "Dataset" and root["license"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", root["datePublished"])
    elsewhere = {"https://w3id.org/ro/crate/1.1"}
    for entity in crate.values():
        assert {"@id", "@type"} <= entity.keys()
        for value in entity.values():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    assert part.keys() == {"@id"} and part["@id"] in crate.keys() | elsewhere
        if entity["@type"] == "File":
            assert {"@id": entity["@id"]} in root["hasPart"]
            assert (study / entity["@id"]).stat().st_size == int(entity["contentSize"])
        assert " " not in entity["@id"]


def test_an_edited_input_has_another_digest(study):
    before = digests([Path("resources")])
    Path("resources/models/m@1/weights").write_text("v")
    after = digests([Path("resources")])
    assert {path for path in before if before[path] != after[path]} == {
        "resources/models/m@1/weights"
    }


def test_the_commit_is_that_of_the_checkout_itself_with_a_mark_on_edits(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    (tmp_path / "file").write_text("1")
    assert git_commit(tmp_path) == ""
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)
    commit = git_commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == commit + "+"
    (tmp_path / "unpacked").mkdir()
    assert git_commit(tmp_path / "unpacked") == ""  # of another repository, not of this folder
    assert git_commit(tmp_path / ("ab" * 20)) == "ab" * 20


def test_versions_are_those_of_all_libraries_that_the_environment_of_the_results_pins():
    dependencies = yaml.safe_load((ROOT / "envs/torch.yaml").read_text())["dependencies"]
    pins = dict(pin.split("==") for pin in dependencies[-1]["pip"])
    assert set(LIBRARIES) == pins.keys()
    assert {name: v.split("+")[0] for name, v in library_versions().items()} == pins
