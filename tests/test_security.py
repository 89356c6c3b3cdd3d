"""What comes from outside, a config, a model, an archive, cannot run code or leave its folder.

Pickled weights of a model: test_models.py; of a download, and its hashes: test_download.py.
"""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from faithful_sae.archives import read_member
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.prepare import describe_model, randomize
from faithful_sae.sae import SAE
from faithful_sae.state import CHECKPOINT, State

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"


class Planted:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self):
        return Path.touch, (self.evidence,)


def test_a_planted_pickle_does_run_when_something_loads_it(tmp_path):
    pickle.loads(pickle.dumps(Planted(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_pickle_in_the_place_of_weights_is_not_loaded(tmp_path):
    folder, evidence = tmp_path / "sae", tmp_path / "ran"
    SAE.untrained(d_in=3, d_sae=4, k=2, seed=0).save(folder, {})
    (folder / "sae_weights.safetensors").write_bytes(pickle.dumps(Planted(evidence)))
    with pytest.raises(ValueError, match="sae_weights.safetensors is damaged"):
        SAE.load(folder)
    State(tmp_path / "state", {}, []).save({}, {})
    (tmp_path / "state" / CHECKPOINT).write_bytes(pickle.dumps(Planted(evidence)))
    assert State(tmp_path / "state", {}, []).load() is None
    assert not evidence.exists()


def test_nothing_in_the_library_can_load_a_pickle():
    loads = {"torch.load", "pickle.load", "pickle.loads", "np.load", "joblib.load", "pl.read_ipc"}
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")]:
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & loads, file


def test_a_models_own_code_is_not_run(tmp_path):
    folder, evidence = tmp_path / "model", tmp_path / "ran"
    randomize(ROOT / "tests/tiny/architecture", folder, seed=0)
    (folder / "SHA256SUMS").unlink()  # whoever plants code can seal it too
    code = f"from pathlib import Path\nPath({str(evidence)!r}).touch()\n"
    for name in ("configuration_x.py", "modeling_x.py", "tokenization_x.py"):
        (folder / name).write_text(code)
    for file, entry in (
        (
            "config.json",
            {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"},
        ),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_x.X", None]}),
    ):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {"auto_map": entry}))
    load_model(folder)
    load_tokenizer(folder)
    describe_model("x", folder, 0, [1])
    assert not evidence.exists()


@pytest.mark.parametrize(
    "call",
    [
        "models.load_model(folder)",
        "models.load_tokenizer(folder)",
        "prepare.randomize(folder, folder.with_name('random'), 0)",
        "prepare.describe_model('x', folder, 0, [1])",
    ],
)
def test_a_model_of_an_unknown_type_is_refused_without_asking(tmp_path, call):
    """There only its own code could help; transformers would ask whether to run it."""
    folder, evidence = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    code = (
        f"from pathlib import Path\nPath({str(evidence)!r}).touch()\n"
        "from transformers import PretrainedConfig\n"
        "class X(PretrainedConfig):\n    model_type = 'unknown'\n"
    )
    for name in ("configuration_x.py", "modeling_x.py", "tokenization_x.py"):
        (folder / name).write_text(code)
    models = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
    (folder / "config.json").write_text(json.dumps({"model_type": "unknown", "auto_map": models}))
    tokenizers = {"AutoTokenizer": ["tokenization_x.X", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": tokenizers}))
    program = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src')]!r}\n"
        "from pathlib import Path\nfrom faithful_sae import models, prepare\n"
        f"folder = Path({str(folder)!r})\n{call}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="y\n", capture_output=True, text=True
    )
    assert not evidence.exists()
    assert done.returncode and "[y/N]" not in done.stdout + done.stderr
    assert "trust_remote_code" in done.stderr


def test_every_call_that_could_run_a_models_code_says_no():
    calls = [
        node
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and re.fullmatch(r"Auto\w+\.from_(pretrained|config)", ast.unparse(node.func))
    ]
    assert len(calls) >= 8
    for call in calls:
        given = ast.unparse(call)
        assert "trust_remote_code=False" in given or "**source" in given, given


def test_an_archives_member_cannot_be_written_anywhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.whl", "w") as archive:
        archive.writestr("../evil.txt", "evil")
        archive.writestr("/etc/evil.txt", "evil")
        archive.writestr("good.txt", "good")
    for member in ("../evil.txt", "/etc/evil.txt", "good.txt"):
        read_member(inside / "a.whl", member)  # bytes in memory, whatever they are called
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.whl"]
    extracting = {"extract", "extractall", "unpack_archive"}
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")]:
        tree = ast.parse(file.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & extracting, file


@pytest.mark.parametrize(
    "name", ["a;b", "$(touch x)", "`x`", "a b", "../a", "a/b", "-a", "a\nb", "a\n", "A", ""]
)
def test_a_name_that_a_shell_or_a_path_could_read_is_refused(name):
    import yaml

    schema = yaml.safe_load(SCHEMA.read_text())
    names = Draft202012Validator(schema["$defs"]["name"])
    assert names.is_valid("wikipedia-2") and not names.is_valid(name)
    for section in ("archives", "models", "corpora", "saes", "tasks"):
        assert schema["properties"][section]["propertyNames"] == {"$ref": "#/$defs/name"}


@pytest.mark.parametrize(
    "file", ["../a-1.whl", "a-1/b.whl", "a-$(touch x).whl", "a-`x`.whl", "a-{b}.whl", "a-1.whl\n"]
)
def test_a_file_that_a_shell_or_a_path_could_read_is_refused(file):
    import yaml

    schema = yaml.safe_load(SCHEMA.read_text())["properties"]["archives"]["additionalProperties"]
    archive = Draft202012Validator(schema)
    assert archive.is_valid({"file": "a_b-1.0+c-py3-none-any.whl", "sha256": "0" * 64})
    assert not archive.is_valid({"file": file, "sha256": "0" * 64})


def test_no_rule_and_no_module_hands_a_string_to_a_shell():
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        assert not re.search(r"^\s+(shell|run):", file.read_text(), flags=re.M), file
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")]:
        text = file.read_text()
        assert "shell=True" not in text and "os.system" not in text, file


def test_a_token_reaches_no_log_and_no_file(tmp_path):
    """A download that fails: the place where a token would be most likely to show."""
    secret = "hf_thisMustNotBeSeenAnywhere0123456789"
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src')]!r}\n"
        "from pathlib import Path\nfrom faithful_sae.download import fetch_hub\n"
        "fetch_hub('org/model', '0' * 40, Path('model'), kind='model', files=['*.safetensors'])\n"
    )
    environment = os.environ | {
        "HF_TOKEN": secret,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "home"),
        "HF_DEBUG": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode and "could not be downloaded" in done.stderr
    assert secret not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
