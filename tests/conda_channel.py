"""A conda channel in the real format, with the two packages that envs/*.yaml take from one.

No conda channel can be reached from every machine that runs the tests. `python` is therefore the
interpreter of this machine, linked as in a virtual environment and labelled with the pinned
version; `pip` is the pinned wheel.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

SITE_PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def make_channel(channel: Path, python: str, pip: str) -> None:
    """Make the channel's folder.

    python, pip: the versions to offer.
    """
    contents = channel.parent / "contents"
    _link_python(contents / "python")
    _unpack_pip(contents / "pip", pip)
    packages = channel / "noarch"
    packages.mkdir(parents=True)
    records = dict(
        [
            _pack(contents / "python", packages, "python", python, depends=[]),
            _pack(contents / "pip", packages, "pip", pip, depends=["python"]),
        ]
    )
    repodata = {"info": {"subdir": "noarch"}, "packages": records, "packages.conda": {}}
    (packages / "repodata.json").write_text(json.dumps(repodata))


def _link_python(folder: Path) -> None:
    base = Path(sys._base_executable)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
    )


def _unpack_pip(folder: Path, version: str) -> None:
    wheels = folder.with_name("wheels")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--dest", wheels, f"pip=={version}"], check=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / SITE_PACKAGES)


def _pack(
    contents: Path, packages: Path, name: str, version: str, depends: list[str]
) -> tuple[str, dict[str, Any]]:
    """Write a package of these contents; its file name and its entry in the channel's index."""
    files = [path for path in sorted(contents.rglob("*")) if path.is_symlink() or path.is_file()]
    paths = [
        {
            "_path": str(path.relative_to(contents)),
            "path_type": "softlink" if path.is_symlink() else "hardlink",
        }
        for path in files
    ]
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": depends,
        "subdir": "noarch",
    }
    info = contents / "info"
    info.mkdir()
    (info / "index.json").write_text(json.dumps(index))
    (info / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    package = packages / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(package, "w:bz2") as archive:
        for path in [*files, *info.iterdir()]:
            archive.add(path, arcname=path.relative_to(contents))
    data = package.read_bytes()
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest()}
    return package.name, index | digests | {"size": len(data)}
