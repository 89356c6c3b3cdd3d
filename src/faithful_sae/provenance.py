"""What a study was made from and by: every input with its digest, every version, in one file.

The file makes the folder of a study a Research Object Crate, which archives and catalogues read:
RO-Crate 1.1 with the profile Process Run Crate 0.5 (Leo et al. 2024, 10.1371/journal.pone.0309210).
"""

import datetime
import json
import mimetypes
import re
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from faithful_sae.checksums import file_digest
from faithful_sae.files import files_below, written_whole

CRATE = "ro-crate-metadata.json"  # the name that the standard prescribes
CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    "https://w3id.org/ro/terms/workflow-run/context",  # has sha256
]
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
# What results depend on; tests hold the list to what envs/torch.yaml pins.
LIBRARIES = (
    *("accelerate", "gguf", "huggingface-hub", "jsonschema", "numpy", "packaging", "polars"),
    *("pyarrow", "safetensors", "scikit-learn", "scipy", "tokenizers", "torch", "transformers"),
)
Entity = dict[str, Any]


def library_versions() -> dict[str, str]:
    """Version of every library of this environment that results depend on."""
    return {name: version(name) for name in LIBRARIES}


def git_commit(checkout: Path) -> str:
    """The commit that a checkout's files are of, with `+` after it if some were edited since.

    Empty where the folder is no checkout of its own, and git cannot tell.
    """
    if re.fullmatch("[0-9a-f]{40}", checkout.name):  # laid out by common.smk from a module's host
        return checkout.name
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")) != checkout.resolve():
            return ""  # inside somebody else's
        edited = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return _git(checkout, "rev-parse", "HEAD") + "+" * bool(edited)
    except (OSError, subprocess.CalledProcessError):
        return ""


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file, and of each file in each folder, by its path."""
    files = [file for path in paths for file in (files_below(path) if path.is_dir() else [path])]
    return {str(file): file_digest(file) for file in sorted(files)}


def study_crate(
    folder: Path, inputs: Iterable[Path], outputs: Sequence[Path], versions: dict[str, str], by: str
) -> Entity:
    """The JSON-LD of the crate that a study's folder becomes.

    inputs: what came from outside, files or folders; outputs: files in the folder; versions: of
    the software that ran; by: the commit of the workflow. Entities refer to one another by `@id`
    and are never nested, as RO-Crate asks.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    sources = [_input(path, digest) for path, digest in digests(inputs).items()]
    results = [_file(path, folder) for path in sorted(outputs)]
    software = [_software(name, number) for name, number in versions.items()]
    workflow = _software("faithful-sae", by or "unknown")
    workflow["softwareRequirements"] = _references(software)
    run = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"study {folder.name}",
        "endTime": today,
        "instrument": {"@id": workflow["@id"]},
        "object": _references(sources),
        "result": _references(results),
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"FaithfulSAE study {folder.name}",
        "description": "Sparse autoencoders trained on text that a language model wrote itself, "
        "beside others: tables, figures, the complete config, and digests of all inputs.",
        "datePublished": today,
        "license": "The terms of the model and of the texts named here bind what is made of them.",
        "conformsTo": {"@id": PROFILE},
        "hasPart": _references(results),
        "mentions": {"@id": run["@id"]},
    }
    standing = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": CONTEXT[0].removesuffix("/context")},
            "about": {"@id": "./"},
        },
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    ]
    graph = [*standing, root, run, workflow, *software, *sources, *results]
    return {"@context": CONTEXT, "@graph": graph}


def plain_json(content: Any) -> str:
    """JSON that other programs read as it is: without a digest of its own."""
    return json.dumps(content, indent=2) + "\n"


def write_plain_json(content: Any, path: Path) -> None:
    """A file of `plain_json`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(plain_json(content))


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _references(entities: Iterable[Entity]) -> list[Entity]:
    return [{"@id": entity["@id"]} for entity in entities]


def _software(name: str, number: str) -> Entity:
    return {
        "@id": f"pkg:generic/{name}@{quote(number)}",  # a package URL, for an absolute URI
        "@type": "SoftwareApplication",
        "name": name,
        "softwareVersion": number,
    }


def _input(path: str, digest: str) -> Entity:
    """What lies outside the crate has a name of its own instead of a path into it."""
    return {"@id": f"#{quote(path)}", "@type": "CreativeWork", "name": path, "sha256": digest}


def _file(path: Path, folder: Path) -> Entity:
    name = path.relative_to(folder).as_posix()
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "encodingFormat": mimetypes.guess_type(name)[0] or "text/plain",
        "contentSize": str(path.stat().st_size),
        "sha256": file_digest(path),
    }
