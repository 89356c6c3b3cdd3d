"""Digests accept what was written, in whatever order, and nothing else."""

import json
import subprocess

import pytest

from faithful_sae.checksums import SEAL, read_json, seal, verify, write_json


def test_files_are_passed_over_by_how_their_names_end_not_by_what_they_contain(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    seal(tmp_path)
    index.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="index.json is damaged .it differs"):
        verify(tmp_path, without=".safetensors")


@pytest.mark.parametrize("line", ["{digest}0  file", "{digest}  ", "no digest  file"])
def test_a_line_of_a_seal_that_is_no_digest_and_name_is_damage(tmp_path, line):
    (tmp_path / "file").write_text("content")
    seal(tmp_path)
    digest = (tmp_path / SEAL).read_text().split()[0]
    (tmp_path / SEAL).write_text(line.format(digest=digest) + "\n")
    with pytest.raises(ValueError, match=f"{SEAL} is damaged .it holds"):
        verify(tmp_path)


def test_a_seal_that_is_no_text_is_damage(tmp_path):
    (tmp_path / SEAL).write_bytes(b"\xff")
    with pytest.raises(ValueError, match=f"{SEAL} is damaged .it is no text"):
        verify(tmp_path)


def test_what_is_sealed_again_passes_the_program_that_the_format_is_of(tmp_path):
    """Which would find the seal itself changed, were it listed."""
    for name in ("b", "a/c", "form\ffeed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for _ in range(2):
        seal(tmp_path)
        verify(tmp_path)
    command = ["sha256sum", "--check", "--strict", SEAL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3, done.stdout + done.stderr


def test_the_order_of_keys_is_no_content_of_json(tmp_path):
    write_json({"b": 1, "a": {"d": 2, "c": 3}}, tmp_path / "facts.json")
    text = json.dumps(json.loads((tmp_path / "facts.json").read_text()), sort_keys=True)
    (tmp_path / "facts.json").write_text(text)
    assert read_json(tmp_path / "facts.json") == {"a": {"c": 3, "d": 2}, "b": 1}


@pytest.mark.parametrize("text", ['"text"', "[]", "7", "null", "{}", '{"sha256": 1}', "", "{"])
def test_json_that_is_no_sealed_object_is_damage(tmp_path, text):
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(ValueError, match="facts.json is damaged"):
        read_json(tmp_path / "facts.json")
