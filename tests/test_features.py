"""The page of features holds its facts, and no text can become a part of the page."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from feature_tables import NOTES, feature_tables, latent

from faithful_sae.features import TEMPLATE, features_page, page_data

NASTY = [
    "</script><script>alert(1)</script>",
    "</SCRIPT >",
    "<!--",
    "<script>",
    "]]>",
    "&lt;b&gt;",
    "{{study}}",
    "\u2028\u2029\x00\r\n\t",
    '"\\',
    "‮right to left",
]


class Elements(HTMLParser):
    """Elements of a page in order, and the text in each of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._within = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._within = tag in ("script", "style")
        if self._within:
            self.texts.append("")

    def handle_endtag(self, tag):
        self._within = False

    def handle_data(self, data):
        if self._within:
            self.texts[-1] += data


def nasty_tables():
    window = (NASTY, [None, *map(float, range(len(NASTY) - 1))])
    contexts = {"heldout": [window], "random": [window]}
    nasty = latent(4, "fake", 0.1, 0.4, 0.5, contexts=contexts, promoted=NASTY[0])
    return feature_tables({"notes": [nasty], "code": [latent(2, "matched", 0.1, 0.0, 0.9)]})


def test_text_of_a_corpus_can_neither_end_the_data_nor_begin_anything():
    tables = nasty_tables()
    page = features_page(tables, NOTES)
    plain = features_page(feature_tables({"notes": [latent(1, "fake", 0, 1, 1)]}), NOTES)
    tags = [tag for tag, _ in Elements(page).found]
    assert tags == [tag for tag, _ in Elements(plain).found]
    _, data, script = Elements(page).texts
    assert json.loads(data) == page_data(tables, NOTES)
    assert json.loads(data)["saes"][0]["latents"][0]["contexts"]["random"][0]["tokens"] == NASTY
    assert "<" not in data
    assert script in TEMPLATE


def test_a_browser_may_run_the_pages_own_script_alone_and_fetch_nothing():
    elements = Elements(features_page(nasty_tables(), NOTES))
    (policy,) = [
        attributes["content"]
        for _, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    style, _, script = elements.texts
    digests = [
        base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script)
    ]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'"
    )
    assert not [a for _, a in elements.found if a.keys() & {"src", "href", "style", "onclick"}]
    assert not re.search(r"https?:|@import|url\(|innerHTML|insertAdjacentHTML|eval\(", TEMPLATE)


def test_fake_latents_come_first_and_silent_ones_are_counted_but_not_shown():
    latents = [
        *(latent(0, "matched", 0.2, 0.05, 0.9), latent(1, "silent", 0, 0, 0.1)),
        *(latent(2, "fake", 0.2, 0.3, 0.9), latent(3, "unmatched", 0.2, 0.01, 0.3)),
        *(latent(4, "fake", 0.1, 0.6, 0.2), latent(5, "matched", 0.2, 0.06, 0.8)),
    ]
    (sae,) = page_data(feature_tables({"notes": latents}), NOTES)["saes"]
    assert [fact["latent"] for fact in sae["latents"]] == [4, 2, 3, 5, 0]
    assert sae["counts"] == {"fake": 2, "unmatched": 1, "matched": 2, "silent": 1}
    assert sae["d_sae"] == 6
    first = sae["latents"][0]
    assert first["fires"] == {"heldout": 0.1, "uniform-tokens": 0.6, "unigram-tokens": 0.03}
    assert (first["partner"], first["cosine"]) == (5, 0.2)
    assert first["promoted"] == [[" up", 2.5]] and first["suppressed"] == [[" down", -1.25]]
    assert first["contexts"] == {"heldout": [], "random": []}


def test_contexts_stand_by_input_in_order_and_whole_numbers_take_no_room():
    windows = [(["a", "b"], [0.0, 12.3456]), (["c"], [2.0])]
    fact = latent(7, "fake", 0.1, 0.2, 0.3, contexts={"heldout": windows, "random": windows[1:]})
    (sae,) = page_data(feature_tables({"notes": [fact]}), NOTES)["saes"]
    contexts = sae["latents"][0]["contexts"]
    assert contexts["random"] == [{"peak": 0, "tokens": ["c"], "activations": [2]}]
    assert contexts["heldout"][0] == {"peak": 1, "tokens": ["a", "b"], "activations": [0, 12.3]}
    assert '"activations":[0,12.3]' in features_page(feature_tables({"notes": [fact]}), NOTES)


def test_saes_stand_in_the_order_of_the_study_and_a_single_seed_has_no_partner():
    tables = feature_tables({c: [latent(0, "unpaired", 0.1, 0, None)] for c in ("z", "a", "m")})
    data = page_data(tables, NOTES | {"sibling": 0})
    assert [sae["corpus"] for sae in data["saes"]] == ["z", "a", "m"]
    assert data["sibling"] is None and data["seed"] == 0
    assert data["saes"][0]["latents"][0]["cosine"] is None


@pytest.mark.parametrize("hole", ["study", "policy", "data"])
def test_the_template_has_a_place_for_everything_that_is_filled_in(hole):
    assert f"{{{{{hole}}}}}" in TEMPLATE
