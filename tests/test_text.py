"""Text and labelled text in files of the user, and Python's own sources."""

import csv
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from any_text import texts
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae.archives import read_member
from faithful_sae.text import (
    read_path,
    read_path_task,
    read_stdlib,
)

documents = st.lists(texts, min_size=1, max_size=5)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)
quick = settings(max_examples=25)


def test_the_standard_library_is_the_same_sources_each_time() -> None:
    sources = list(read_stdlib())
    assert sources == list(read_stdlib())
    assert Path(csv.__file__).read_text(encoding="utf-8") in sources
    assert len(sources) > 100


def write_rows(file: Path, rows: list[dict[str, object]]) -> None:
    if file.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(file)
    elif file.suffix == ".jsonl":
        ascii_only = len(rows) % 2 == 0  # both ways of writing JSON
        lines = (json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
        file.write_bytes("".join(lines).encode())
    else:
        with open(file, "w", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@quick
@given(texts=documents)
def test_tables_give_back_every_document_in_order(suffix: str, texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"corpus{suffix}"
        write_rows(file, [{"id": i, "body": text} for i, text in enumerate(texts)])
        assert list(read_path(file, column="body")) == texts


@quick
@given(texts=documents)
def test_a_folder_of_txt_gives_a_document_a_file_in_sorted_order(texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        for i, text in reversed(list(enumerate(texts))):
            (Path(folder) / f"{i}.txt").write_bytes(text.encode())
        assert list(read_path(Path(folder))) == texts
        assert list(read_path(Path(folder) / "*.txt")) == texts


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@quick
@given(pairs=pairs)
def test_tables_give_back_every_labelled_text(suffix: str, pairs: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"task{suffix}"
        write_rows(file, [{"label": label, "text": text} for text, label in pairs])
        assert list(read_path_task(file)) == pairs


def test_number_labels_become_text_and_null_texts_are_left_out(tmp_path: Path) -> None:
    rows = [{"q": "one", "y": 1}, {"q": None, "y": 0}, {"q": "two", "y": 0}]
    write_rows(tmp_path / "task.parquet", rows)
    read = read_path_task(tmp_path / "task.parquet", text_column="q", label_column="y")
    assert list(read) == [("one", "1"), ("two", "0")]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8-sig")
    (tmp_path / "b.csv").write_text("text,label\none,1\n", encoding="utf-8-sig")
    assert list(read_path(tmp_path / "a.txt")) == ["one"]
    assert list(read_path_task(tmp_path / "b.csv")) == [("one", "1")]


def test_a_folder_is_read_deeply_without_hidden_or_other_files(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.TXT", ".cache/3.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(read_path(tmp_path)) == ["a/1.TXT", "b/2.txt"]


def test_a_name_that_looks_like_a_pattern_is_read_as_a_name(tmp_path: Path) -> None:
    (tmp_path / "part[1].txt").write_text("one")
    assert list(read_path(tmp_path / "part[1].txt")) == ["one"]


def test_a_csv_field_may_be_as_long_as_a_book(tmp_path: Path) -> None:
    write_rows(tmp_path / "task.csv", [{"text": "x" * 200_000, "label": "long"}])
    ((text, _),) = read_path_task(tmp_path / "task.csv")
    assert len(text) == 200_000


@pytest.mark.parametrize("name", ["absent.txt", "*.txt", "."])
def test_no_matching_file_is_an_error_that_names_the_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="matches no file that ends in .txt, .jsonl, .parquet"):
        read_path(tmp_path / name)


@pytest.mark.parametrize("name", ["words.md", "*"])
def test_another_kind_of_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "words.md").write_text("words")
    with pytest.raises(ValueError, match="words.md has to end in one of"):
        read_path(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"body": "x"}\n', r"row 1 has no column 'text', only \['body'\]"),
        ("a.jsonl", b'{"text": "x"}\nnot\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n["y"]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"text": 7}\n', "row 1 has no text but 7 in column 'text'"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogates not allowed"),
        ("a.txt", b"caf\xe9", "can't decode byte 0xe9"),
        ("a.parquet", b"not a table", "Parquet"),
    ],
)
def test_a_damaged_file_is_an_error_with_its_name(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} cannot be read: .*{message}"):
        list(read_path(tmp_path))


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [{"body": "x", "id": 1}])
    with pytest.raises(ValueError, match=r"no column 'text', only \['body', 'id'\]"):
        list(read_path(tmp_path))


def test_an_unlabelled_row_is_an_error_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,1\ntwo,\n")
    with pytest.raises(ValueError, match="a.csv cannot be read: row 2 has no label"):
        list(read_path_task(tmp_path))


def test_blank_texts_alone_are_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\t")
    with pytest.raises(ValueError, match="holds no document"):
        list(read_path(tmp_path))


def test_a_member_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("data/dialog.txt", "text")
    with pytest.raises(ValueError, match="has no member 'x'; the nearest are: data/dialog.txt"):
        read_member(tmp_path / "a.whl", "x")
