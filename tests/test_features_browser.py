"""The page of features in headless Chromium: sorted, searched and opened by mouse and keys."""

import pytest
from browser import CHROMIUM, Page
from feature_tables import NOTES, feature_tables, latent

from faithful_sae.features import features_page

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")

HACK = "</script><img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
ROWS = "[...document.querySelectorAll('tr.row button')].map(b => +b.textContent)"
INK = """(() => {
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = e => getComputedStyle(e).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const paper = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  const weighted = (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i];
  const luminance = c => c.map(channel).reduce(weighted, 0);
  const contrast = e => {
    const [low, high] = [luminance(light(e)), luminance(paper)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return ["h1", "#about", "td button", "th button"].map(s => contrast(document.querySelector(s)));
})()"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    text = (["<|start|>", " a", " striped", " zebra", "\n"], [None, 0.0, 2.0, 8.0, 0.0])
    random = (["qui", HACK, " zebu"], [0.0, 12.0, 4.0])
    notes = [
        latent(3, "fake", 0.01, 0.5, 0.9, contexts={"heldout": [text], "random": [random]}),
        latent(1, "fake", 0.40, 0.3, 0.2),
        latent(8, "unmatched", 0.02, 0.05, 0.4, contexts={"heldout": [(["lion"], [1.0])]}),
        latent(5, "matched", 0.20, 0.0, 0.8, promoted=" lioness"),
        latent(9, "silent", 0.0, 0.0, 0.1),
    ]
    tables = feature_tables({"notes": notes, "code": [latent(77, "matched", 0.1, 0.0, 0.95)]})
    path = tmp_path_factory.mktemp("page") / "features.html"
    path.write_text(features_page(tables, NOTES), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with Page(1280, 900) as page:
        yield page


@pytest.fixture
def page(browser, file):
    """The page as it opens; what it asked for and complained of is checked after every test."""
    browser.open(file)
    yield browser
    assert set(browser.requests) == {file.as_uri()}
    assert not browser.complaints
    assert browser.ask("window.hacked") is None


def sorted_by(page: Page) -> list[str]:
    return page.ask("[...document.querySelectorAll('[aria-sort]')].map(t => t.dataset.key)")


def test_it_opens_with_fake_latents_first(page):
    assert page.ask(ROWS) == [3, 1, 8, 5]
    assert sorted_by(page) == ["kind"]
    assert "has 5: 2 fake, 1 unmatched, 1 matched, 1 silent" in page.ask("count.textContent")


def test_a_click_on_a_heading_sorts_by_it_and_another_click_turns_the_order(page):
    for key, first, second in (
        ("text", [1, 5, 8, 3], [3, 8, 5, 1]),
        ("random", [3, 1, 8, 5], [5, 8, 1, 3]),
        ("cosine", [3, 5, 8, 1], [1, 8, 5, 3]),
        ("latent", [1, 3, 5, 8], [8, 5, 3, 1]),
    ):
        for expected in (first, second):
            page.click(f"th[data-key={key}] button")
            assert (page.ask(ROWS), sorted_by(page)) == (expected, [key])
    assert page.ask("document.querySelector('[aria-sort]').ariaSort") == "descending"


def test_search_finds_contexts_tokens_and_numbers_and_says_when_there_is_nothing(page):
    page.click("#search")
    page.type("STRIPED zeb")
    assert page.ask(ROWS) == [3]
    page.ask("search.select()")
    page.type("lion")
    assert page.ask(ROWS) == [8, 5]  # in a context, and among the promoted tokens
    page.ask("search.select()")
    page.type("8")
    assert page.ask(ROWS) == [8]
    page.type("88")
    assert page.ask(ROWS) == []
    assert "No listed latent" in page.ask("rows.textContent")


def test_a_click_opens_a_latent_with_both_inputs_side_by_side_and_another_closes_it(page):
    page.click("#latent-3")
    sides = page.ask(
        "[...document.querySelectorAll('#detail-3 .contexts')].map(s => s.textContent)"
    )
    assert sides == ["8.00<|start|> a striped zebra↵", f"12.0qui{HACK} zebu"]  # text, all of it
    left, right = page.ask(
        "[...document.querySelectorAll('#detail-3 .contexts')]"
        ".map(s => s.getBoundingClientRect().x)"
    )
    assert right > left + 300
    assert "+2.5" in page.ask("document.querySelector('#detail-3').textContent")
    assert page.ask("document.getElementById('latent-3').ariaExpanded") == "true"
    page.click("#latent-3")
    assert page.ask("document.getElementById('detail-3')") is None


def test_tokens_are_coloured_by_activation_on_one_scale_for_both_inputs(page):
    page.click("#latent-3")
    colours = page.ask(
        "Object.fromEntries([...document.querySelectorAll('#detail-3 .tokens span')].map(t =>"
        "[t.textContent.slice(0, 6), getComputedStyle(t).backgroundColor.split(/[ ,/)]+/)[3]]))"
    )
    alpha = {token: float(value or 1) for token, value in colours.items()}
    assert alpha["a"] == alpha["<|star"] == 0
    assert 0 < alpha["stripe"] < alpha["zebu"] < alpha["zebra"] < alpha["</scri"]
    assert alpha["</scri"] == pytest.approx(0.8, abs=0.01)  # the latent's strongest token
    assert page.ask("document.querySelector('#detail-3 .peak').textContent") == "zebra"


def test_keys_alone_open_a_latent_and_the_focus_stays_on_it(page):
    page.ask("document.getElementById('latent-8').focus()")
    page.press("Enter", 13)
    assert page.ask("document.getElementById('detail-8') !== null")
    assert page.ask("document.activeElement.id") == "latent-8"
    page.press("Enter", 13)
    assert page.ask("document.getElementById('detail-8')") is None


def test_corpus_and_kind_are_chosen_by_click(page):
    page.click("#kinds label:nth-child(3) input")
    assert page.ask(ROWS) == [8]
    page.click("#corpora label:nth-child(2) input")  # has no unmatched one: all kinds again
    assert page.ask(ROWS) == [77]
    assert page.ask("document.querySelector('#kinds input:checked').value") == "all"


def test_no_text_is_wider_than_a_phone(file):
    with Page(360, 740) as phone:
        phone.open(file)
        phone.click("#latent-3")
        assert phone.ask("document.documentElement.scrollWidth <= innerWidth")
        phone.click("th[data-key=text] button")
        assert phone.ask(ROWS) == [1, 5, 8, 3]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_paper_by_day_and_by_night(file, dark):
    with Page(1280, 900, dark=dark) as page:
        page.open(file)
        paper = page.ask("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 300) == dark
        assert min(page.ask(INK)) >= 4.5  # WCAG 2, level AA
