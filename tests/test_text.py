"""Readers of text and of labelled text, on samples made here."""

import bz2
import csv
import io
import json
import zipfile
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae.archives import read_member
from faithful_sae.swapped_words import swapped_words
from faithful_sae.text import (
    CORPUS_READERS,
    TASK_READERS,
    read_archive_corpus,
    read_archive_task,
    read_path,
    read_path_task,
    read_stdlib,
    read_task,
)

# Texts with anything that UTF-8 can say. A leading U+FEFF is a byte order mark, not text.
texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda text: text.strip() and not text.startswith("\ufeff")
)
documents = st.lists(texts, min_size=1, max_size=5)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)
quick = settings(max_examples=25)


def make_wheel(folder: Path, member: str, data: bytes) -> Path:
    archive = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
    return archive


def corpus(folder: Path, data: bytes, reader: str) -> list[str]:
    return list(read_archive_corpus(make_wheel(folder, "member", data), "member", reader))


def task(folder: Path, data: bytes, reader: str) -> list[tuple[str, str]]:
    return list(read_archive_task(make_wheel(folder, "member", data), "member", reader))


# Archives


@quick
@given(data=st.binary(), member=st.text(st.characters(codec="ascii", categories=["L"]), min_size=1))
def test_a_member_comes_back_byte_for_byte(data: bytes, member: str) -> None:
    with TemporaryDirectory() as folder:
        assert (
            read_member(make_wheel(Path(folder), f"demo/{member}", data), f"demo/{member}") == data
        )


def test_a_missing_member_names_the_nearest_one(tmp_path: Path) -> None:
    archive = make_wheel(tmp_path, "demo/data/dialog.txt", b"")
    with pytest.raises(ValueError, match="no member 'demo/dialog.txt'.*demo/data/dialog.txt"):
        read_member(archive, "demo/dialog.txt")


def test_a_damaged_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = make_wheel(tmp_path, "member", b"some text " * 100)
    damaged = bytearray(archive.read_bytes())
    damaged[40] ^= 0xFF
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{archive} is damaged"):
        read_member(archive, "member")


@pytest.mark.parametrize(("name", "nearest"), [("wikipeda", "wikipedia"), ("json", "jsonl")])
def test_an_unknown_reader_names_the_nearest_at_once(
    tmp_path: Path, name: str, nearest: str
) -> None:
    with pytest.raises(ValueError, match=f"unknown reader '{name}'; did you mean '{nearest}'"):
        read_archive_corpus(make_wheel(tmp_path, "member", b""), "member", name)


def test_a_task_reader_reads_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown reader 'sms_spam'"):
        read_archive_corpus(make_wheel(tmp_path, "member", b""), "member", "sms_spam")


@pytest.mark.parametrize("reader", sorted(CORPUS_READERS.keys() - {"wikipedia", "zipped_csv"}))
def test_an_empty_member_is_an_error_that_names_it(tmp_path: Path, reader: str) -> None:
    with pytest.raises(ValueError, match="member in .*demo.* holds no document"):
        corpus(tmp_path, b"\n", reader)


@pytest.mark.parametrize("reader", sorted(TASK_READERS))
def test_an_empty_task_is_an_error_that_names_it(tmp_path: Path, reader: str) -> None:
    with pytest.raises(ValueError, match="member in .*demo.* holds no document"):
        task(tmp_path, b"", reader)


@pytest.mark.parametrize("reader", sorted(CORPUS_READERS))
def test_bytes_a_reader_cannot_read_are_an_error_that_names_the_member(
    tmp_path: Path, reader: str
) -> None:
    with pytest.raises(ValueError, match="member in .*demo.* cannot be read"):
        corpus(tmp_path, b"\xff\xfe caf\xe9", reader)


# Corpus readers


def dump(*pages: tuple[str, str], namespace: str = "0") -> bytes:
    body = "".join(
        f"<page><title>{title}</title><ns>{namespace}</ns>"
        f"<revision><text>{escape(text)}</text></revision></page>"
        for title, text in pages
    )
    return bz2.compress(f'<mediawiki xmlns="urn:export">{body}</mediawiki>'.encode())


FILLER = "Plain words without any mark-up follow here. " * 12


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("the '''bold''' and ''italic''", "the bold and italic"),
        ("a [[target]] and a [[target page|label]]", "a target and a label"),
        ("a {{note|with {{inner}} and [[link]]}}template", "a template"),
        ("about {{convert|10|km|mi|abbr=on}} long", "about 10 km long"),
        ("the {{lang|fr|mot juste}} said", "the mot juste said"),
        ("before{| class=x\n|-\n| cell {| inner |} || cell\n|}after", "beforeafter"),
        ("seen<ref name=a/> and<ref>{{cite|x}} [[y]]</ref> noted", "seen and noted"),
        ("one<br />two<!-- hidden\n--> H<sub>2</sub>O", "one two H2O"),
        ("x [[File:a.png|thumb|a [[deep|caption]] [sic] ends]]y", "x y"),
        ("ends [[Category:Things]][[category:Others]]", "ends"),
        (
            "see [[:Category:Things]] and [http://x.org a site] [//y.org]",
            "see Category:Things and a site",
        ),
        ("5&nbsp;km &ndash; &amp; &lt;b&gt;", "5 km – & <b>"),
        ("name ({{IPA|x}}; born 1900) lived ({{flag}}) on", "name (born 1900) lived on"),
        ("__NOTOC__an __init__ {{tag}}, too", "an __init__, too"),
        (
            "line\n== Heading ==\n* item\n# item\n: quote\n; term\n| cell\n! head\nline",
            "line\nline",
        ),
    ],
)
def test_wikipedia_keeps_the_prose_alone(tmp_path: Path, marked: str, plain: str) -> None:
    (text,) = corpus(tmp_path, dump(("Page", f"{FILLER}\n{marked}")), "wikipedia")
    assert text == f"{FILLER.strip()}\n{plain}"


def test_wikipedia_drops_short_pages_and_those_that_are_no_articles(tmp_path: Path) -> None:
    pages = dump(("Stub", "A short page."), ("Page", FILLER), ("Table", "{|" + FILLER + "|}"))
    assert corpus(tmp_path, pages, "wikipedia") == [FILLER.strip()]
    with pytest.raises(ValueError, match="holds no document"):
        corpus(tmp_path, dump(("Talk", FILLER), namespace="1"), "wikipedia")


def test_dialogue_makes_documents_of_32_exchanges_an_utterance_a_line(tmp_path: Path) -> None:
    data = "".join(f"turn {i} \treply {i}\n" for i in range(40)).encode()
    first, last = corpus(tmp_path, data, "dialogue")
    assert first.split("\n")[:3] == ["turn 0", "reply 0", "turn 1"]
    assert first.endswith("turn 31\nreply 31")
    assert last.startswith("turn 32\nreply 32") and last.count("\n") == 15


@quick
@given(text=texts)
def test_the_text_reader_keeps_the_member_whole(text: str) -> None:
    with TemporaryDirectory() as folder:
        assert corpus(Path(folder), text.encode(), "text") == [text]


def test_the_lines_reader_cuts_at_line_feeds_only(tmp_path: Path) -> None:
    data = "one\r\n\n \ntwo\u2028still\x0ctwo\n".encode()
    assert corpus(tmp_path, data, "lines") == ["one", "two\u2028still\x0ctwo"]


def zipped(*files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as folder:
        for number, file in enumerate(files):
            folder.writestr(f"{number}.csv", file)
    return data.getvalue()


def test_a_zipped_csv_gives_its_text_column_with_line_breaks_and_quotes(tmp_path: Path) -> None:
    data = zipped('id,"text",other\n1,"One, ""two""\nthree.",x\n2,,y\n3,Señoría,z\n')
    assert corpus(tmp_path, data, "zipped_csv") == ['One, "two"\nthree.', "Señoría"]


@pytest.mark.parametrize("files", [("id,body\n1,a\n",), (), ("text\na\n", "text\nb\n")])
def test_a_zip_that_is_not_one_csv_with_texts_is_an_error(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="member in .*demo.* cannot be read"):
        corpus(tmp_path, zipped(*files), "zipped_csv")


def test_an_orange_table_gives_its_content_column_without_the_lines_of_types(
    tmp_path: Path,
) -> None:
    header = "Title\tContent\tKind\r\nstring\tstring\tdiscrete\r\nmeta\tinclude=True\tclass\r\n"
    table = 'One\tOnce upon a time\ttale\r\nTwo\t"a ""tab""\tin it"\ttale\r\n'
    expected = ["Once upon a time", 'a "tab"\tin it']
    assert corpus(tmp_path, (header + table).encode(), "orange") == expected
    assert corpus(tmp_path, f"{header}\r\n{table}".encode(), "orange") == expected


# Task readers


def test_sentiment_is_the_sign_of_the_rating_with_or_without_a_header(tmp_path: Path) -> None:
    rows = b"1\t2.5\tGood\tstuff\r\n2\t-0.1\tBad\r\n3\t0.0\tNeither\r\n"
    expected = [("Good\tstuff", "positive"), ("Bad", "negative")]
    assert task(tmp_path, rows, "vader_sentiment") == expected
    assert task(tmp_path, b"id\tsentiment\ttext\r\n" + rows, "vader_sentiment") == expected


def test_sentiment_is_of_text_and_not_of_the_html_it_was_stored_as(tmp_path: Path) -> None:
    rows = b"1\t2.5\tme &amp; you &lt;3\n"
    assert task(tmp_path, rows, "vader_sentiment") == [("me & you <3", "positive")]


def test_spam_reads_quoted_commas_and_line_breaks(tmp_path: Path) -> None:
    data = b',spam,text\n0,0,"Yes, ""dear""\nsoon"\n1,1,Win now\n'
    assert task(tmp_path, data, "sms_spam") == [('Yes, "dear"\nsoon', "ham"), ("Win now", "spam")]


def test_questions_lose_their_fine_class_and_their_repeats(tmp_path: Path) -> None:
    data = b"NUM:date When ?\nHUM:ind Who ?\nNUM:date When ?\nNUM:other When ?\n"
    assert task(tmp_path, data, "trec_question") == [("When ?", "NUM"), ("Who ?", "HUM")]


def test_a_task_of_swapped_words_is_made_of_the_sentences_of_a_text(tmp_path: Path) -> None:
    sentences = [f"The quick fox number {n}o jumps over the lazy dog." for n in "abcdefgh"]
    archive = make_wheel(tmp_path, "news.txt", "\n".join(sentences).encode())
    entry = {"source": "swapped_words", "member": "news.txt", "reader": "lines"}
    assert list(read_task(entry, archive)) == list(swapped_words(sentences))
    assert {label for _, label in read_task(entry, archive)} == {"real", "swapped"}


# Python's own sources


def test_the_standard_library_is_the_same_sources_each_time() -> None:
    sources = list(read_stdlib())
    assert sources == list(read_stdlib())
    assert Path(csv.__file__).read_text(encoding="utf-8") in sources
    assert len(sources) > 100


# Files


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


def test_jsonl_members_read_as_jsonl_files_do(tmp_path: Path) -> None:
    data = b'{"text": "one"}\n\n{"text": "two\\nlines"}'
    assert corpus(tmp_path, data, "jsonl") == ["one", "two\nlines"]
