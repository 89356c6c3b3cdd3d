"""Downloads, without a network: pip reads a folder of made wheels, the hub is a loopback server."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from faithful_sae.checksums import SEAL, file_digest, verify
from faithful_sae.download import DownloadError, fetch_hub, fetch_wheel

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WRONG = "0" * 64
FILES = ["*.json", "*.safetensors"]


def make_wheel(folder: Path, file: str) -> Path:
    """A wheel that pip accepts and that no Python of today could install (Requires-Python)."""
    folder.mkdir(exist_ok=True)
    metadata = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Python: <3\n"
    with zipfile.ZipFile(folder / file, "w") as wheel:
        wheel.writestr("demo/words.txt", file)
        wheel.writestr("demo-1.0.dist-info/METADATA", metadata)
        wheel.writestr("demo-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {file[9:-4]}\n")
        wheel.writestr("demo-1.0.dist-info/RECORD", "")
    return folder / file


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole package index; its wheels differ in platform alone."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    for tag in ("py2.py3-none-any", "cp39-cp39-win_amd64", "cp311-cp311-macosx_11_0_arm64"):
        make_wheel(tmp_path / "index", f"demo-1.0-{tag}.whl")
    return tmp_path / "index"


@pytest.mark.parametrize("tag", ["py2.py3-none-any", "cp39-cp39-win_amd64"])
def test_a_wheel_of_any_platform_is_fetched_on_this_one(
    index: Path, tmp_path: Path, tag: str
) -> None:
    wheel = index / f"demo-1.0-{tag}.whl"
    destination = tmp_path / "resources" / "demo.whl"
    fetch_wheel(wheel.name, file_digest(wheel), destination)
    assert destination.read_bytes() == wheel.read_bytes()
    assert list(destination.parent.iterdir()) == [destination]


def test_pip_failure_names_the_file_the_reason_and_the_remedy(index: Path, tmp_path: Path) -> None:
    destination = tmp_path / "resources" / "demo.whl"
    with pytest.raises(DownloadError) as caught:
        fetch_wheel("demo-2.0-py3-none-any.whl", WRONG, destination)
    message = str(caught.value)
    assert "demo-2.0-py3-none-any.whl could not be downloaded" in message
    assert "No matching distribution found for demo==2.0" in message
    assert str(destination.parent / "by-hand" / "demo-2.0-py3-none-any.whl") in message
    assert "\n" not in message
    assert list(destination.parent.iterdir()) == []


def test_what_a_killed_download_left_goes_with_the_next(tmp_path: Path) -> None:
    """Half a wheel, for which nobody would ever look again."""
    (tmp_path / "by-hand").mkdir()
    wheel = make_wheel(tmp_path / "by-hand", "demo-1.0-py3-none-any.whl")
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from faithful_sae import download
download.file_digest = lambda path: os.kill(os.getpid(), signal.SIGKILL)
download.fetch_wheel({wheel.name!r}, "{WRONG}", Path({str(tmp_path / wheel.name)!r}))
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    fetch_wheel(wheel.name, file_digest(wheel), tmp_path / wheel.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by-hand", wheel.name]


def test_a_wheel_placed_by_hand_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "by-hand").mkdir()
    wheel = make_wheel(tmp_path / "by-hand", "demo-1.0-py3-none-any.whl")
    fetch_wheel(wheel.name, file_digest(wheel).upper(), tmp_path / "demo.whl")
    assert (tmp_path / "demo.whl").read_bytes() == wheel.read_bytes()
    assert wheel.exists()


def test_a_mismatch_names_both_hashes_and_keeps_what_was_there(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "by-hand", "demo-1.0-py3-none-any.whl")
    (tmp_path / "demo.whl").write_bytes(b"earlier")
    with pytest.raises(DownloadError) as caught:
        fetch_wheel(wheel.name, WRONG, tmp_path / "demo.whl")
    for part in (wheel.name, WRONG, file_digest(wheel)):
        assert part in str(caught.value)
    assert (tmp_path / "demo.whl").read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by-hand", "demo.whl"]


@pytest.mark.parametrize("file", ["demo-1.0.tar.gz", "demo-1.0.zip", "demo.whl"])
def test_an_archive_that_is_no_wheel_is_refused_before_pip_runs(tmp_path: Path, file: str) -> None:
    with pytest.raises(DownloadError, match=f"{file} is not the name of a wheel"):
        fetch_wheel(file, WRONG, tmp_path / "demo")


REPOSITORIES = {
    "org/model": {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "README.md": b"readme",
    },
    "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "org/text": {"data/part-0.jsonl": b'{"text": "one"}', "data/part-1.jsonl": b'{"text": "two"}'},
}


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download needs: the tree of a commit, and its files."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api").strip("/")
        path = path.removeprefix("models/").removeprefix("datasets/")
        repo = "/".join(path.split("/")[:2])
        files = REPOSITORIES.get(repo)
        if repo == "org/gated":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif files is None:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif COMMIT not in path:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": sha1(body)}
                for name, body in files.items()
            ]
            self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        else:
            body = files[path.partition(f"/resolve/{COMMIT}/")[2]]
            self.answer(200, body, {"ETag": f'"{sha1(body)}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def sha1(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(endpoint: str, home: Path, repo: str, *, offline: bool = False, **changes: object) -> str:
    """The message of the DownloadError of a fetch in a process of its own, or "".

    The hub library reads its endpoint once, when it is imported.
    """
    request = {"revision": COMMIT, "kind": "model", "files": FILES, **changes}
    code = (
        "import json, sys; from pathlib import Path\n"
        "from faithful_sae.download import DownloadError, fetch_hub\n"
        "repo, destination, request = sys.argv[1:]\n"
        "try: fetch_hub(repo, destination=Path(destination), **json.loads(request))\n"
        "except DownloadError as error: sys.exit('DownloadError: ' + str(error))\n"
    )
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "home"), "HF_TOKEN": "hf_secret"}
    environment |= {"NO_PROXY": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"HF_HUB_OFFLINE": str(int(offline))}
    destination = home / "resources" / "fetched"
    command = [sys.executable, "-c", code, repo, str(destination), json.dumps(request)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "hf_secret" not in run.stdout + run.stderr
    if run.returncode == 0:
        return ""
    *_, message = run.stderr.strip().splitlines()
    assert message.startswith("DownloadError: "), run.stderr
    assert list((home / "resources").iterdir()) == []
    return message


def content(folder: Path) -> dict[str, bytes]:
    """The files of a fetched folder but its seal, which must hold."""
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / SEAL).exists()
    verify(folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SEAL]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_model_arrives_as_plain_files_without_pickles_or_cache(
    endpoint: str, tmp_path: Path
) -> None:
    files = ["*.json", "*.safetensors", "pytorch_model*"]
    assert fetch(endpoint, tmp_path, "org/model", files=files) == ""
    wanted = {
        name: REPOSITORIES["org/model"][name] for name in ("config.json", "model.safetensors")
    }
    assert content(tmp_path / "resources" / "fetched") == wanted
    assert [path.name for path in (tmp_path / "resources").iterdir()] == ["fetched"]


def test_a_data_set_replaces_what_an_earlier_fetch_left(endpoint: str, tmp_path: Path) -> None:
    stale = tmp_path / "resources" / "fetched" / "data" / "stale.jsonl"
    stale.parent.mkdir(parents=True)
    stale.write_text("stale")
    assert fetch(endpoint, tmp_path, "org/text", kind="dataset", files=["data/*.jsonl"]) == ""
    assert content(tmp_path / "resources" / "fetched") == REPOSITORIES["org/text"]
    assert [path.name for path in (tmp_path / "resources").iterdir()] == ["fetched"]


@pytest.mark.parametrize(
    ("repo", "changes", "parts"),
    [
        ("org/gated", {}, ["is gated", "accept its licence", "HF_TOKEN", "by hand"]),
        ("org/absent", {}, ["org/absent", "does not exist or is private", "HF_TOKEN"]),
        ("org/model", {"revision": "f" * 40}, ["f" * 40, "pin another commit"]),
        ("org/model", {"files": ["*.parquet"]}, ["holds no file that matches *.parquet"]),
        ("org/pickled", {}, ["no .safetensors weights"]),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_with_the_remedy(
    endpoint: str, tmp_path: Path, repo: str, changes: dict[str, object], parts: list[str]
) -> None:
    message = fetch(endpoint, tmp_path, repo, **changes)
    assert [part for part in parts if part not in message] == []


def test_offline_the_message_says_where_files_go_by_hand(endpoint: str, tmp_path: Path) -> None:
    message = fetch(endpoint, tmp_path, "org/model", offline=True)
    assert "could not be downloaded" in message
    assert f"put its files into {tmp_path / 'resources' / 'fetched'} by hand" in message


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper(), COMMIT + "\n"])
def test_a_revision_that_can_move_is_refused(tmp_path: Path, revision: str) -> None:
    with pytest.raises(DownloadError, match="pin a commit"):
        fetch_hub("org/model", revision, tmp_path / "fetched", kind="model", files=FILES)


@pytest.mark.parametrize("pattern", ["*.bin", "*.pt", "weights.PKL"])
def test_pickles_are_refused_when_asked_for(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DownloadError, match="may be a pickle"):
        fetch_hub("org/model", COMMIT, tmp_path / "fetched", kind="model", files=[pattern])


def test_pip_is_asked_for_this_wheel_alone_and_never_for_code_to_build(tmp_path, monkeypatch):
    """Of an sdist pip runs the setup, and a dependency can be one."""
    asked = []

    def run(command, **_):
        asked.extend(command)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DownloadError, match="it said nothing"):
        fetch_wheel("demo-1.0-py3-none-any.whl", "0" * 64, tmp_path / "demo-1.0-py3-none-any.whl")
    assert "--no-deps" in asked and asked[asked.index("--only-binary") + 1] == ":all:"
