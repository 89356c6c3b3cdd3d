"""Text as the model hub holds it: compressed lines, labelled tables, gates."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from faithful_sae.checksums import seal
from faithful_sae.download import DownloadError, fetch_hub
from faithful_sae.text import read_path, read_task

TASK = {"source": "hub", "column": "sentence", "label": "verdict"}


def compress(lines: bytes) -> bytes:
    return pa.compress(lines, codec="zstd", asbytes=True)


def test_compressed_lines_are_read_like_plain_ones_whatever_their_frames(tmp_path: Path) -> None:
    rows = [f'{{"text": "document {i}", "meta": {{}}}}\n'.encode() for i in range(5)]
    frames = compress(b"".join(rows[:3])) + compress(b"".join(rows[3:]))
    (tmp_path / "val.jsonl.zst").write_bytes(frames)
    (tmp_path / "notes.zst").write_bytes(b"not a corpus")
    assert list(read_path(tmp_path)) == [f"document {i}" for i in range(5)]


def test_a_compressed_file_that_is_cut_off_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = compress(b"".join(b'{"text": "%d"}\n' % i for i in range(5_000)))
    (tmp_path / "val.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"val\.jsonl\.zst cannot be read"):
        list(read_path(tmp_path))


def test_labelled_texts_of_the_hub_lose_those_under_two_labels(tmp_path: Path) -> None:
    pairs = [("good", 1), ("bad", 0), ("both", 1), ("good", 1), ("both", 0)]
    table = pl.DataFrame(pairs, schema=["sentence", "verdict"], orient="row")
    (tmp_path / "cola").mkdir()
    table.write_parquet(tmp_path / "cola/train.parquet")
    seal(tmp_path)
    assert list(read_task(TASK, tmp_path)) == [("good", "1"), ("bad", "0")]
    (tmp_path / "cola/train.parquet").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"train\.parquet"):
        list(read_task(TASK, tmp_path))


@pytest.mark.parametrize(
    ("token", "said"), [(None, "there is none"), ("hf_x", "the one that is set has no access")]
)
def test_a_gate_says_whether_a_token_is_missing_or_has_no_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: object, **__: object) -> None:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    repo, commit = "meta-llama/Llama-3.1-8B", "d" * 40
    with pytest.raises(DownloadError) as error:
        fetch_hub(repo, commit, tmp_path / "model", kind="model", files=["*.safetensors"])
    message = str(error.value)
    for part in (repo, "is gated", "accept its licence", "HF_TOKEN", said, "by hand"):
        assert part in message
    assert "\n" not in message and list(tmp_path.iterdir()) == []
