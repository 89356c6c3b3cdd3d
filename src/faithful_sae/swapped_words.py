"""A made acceptability task: real sentences against sentences in which two words changed places.

It stands in for CoLA, which no archive of our studies carries, and is not CoLA: nobody judged these
sentences, and most swaps break grammar and sense alike.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import combinations

from faithful_sae.contexts import digest

SHORTEST, LONGEST = 6, 30  # words
# Without quotes, brackets or markup, of which a swap could leave a half anywhere.
SENTENCE = re.compile(r"[A-Z][^\s\"“”()\[\]{}<>|=*_]*(?: [^\s\"“”()\[\]{}<>|=*_]+)+[.!?]")
# After three small letters: the full stop of "Mr.", "U.S." or "a.m." ends no sentence.
SENTENCE_END = re.compile(r"(?<=[a-z]{3}[.!?])\s+(?=[A-Z])")
# A whole word of letters, but for the punctuation after it.
WORD = re.compile(r"(?<!\S)[^\W\d_]+(?:['’-][^\W\d_]+)*(?=[,;:.!?]*(?:\s|$))")


def swapped_words(documents: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each sentence of the documents once: as it is ("real"), or with two words exchanged.

    A hash of the sentence chooses its class, so that no sentence is in both, and the two words:
    different ones, neither with a capital. Capitals and punctuation keep their places, so that they
    do not give the class away. Left out are repeats and a swap that makes another of the sentences.
    """
    sentences = dict.fromkeys(s for document in documents for s in sentences_of(document))
    for sentence in sentences:
        # Not the bare sentence: tasks take their examples in the order of its digest.
        draw = digest(b"swapped words " + sentence.encode())
        pairs = _exchangeable(sentence)
        if not pairs:
            continue
        if draw[0] % 2:
            swapped = _exchange(sentence, *pairs[int.from_bytes(draw[1:], "big") % len(pairs)])
            if swapped not in sentences:
                yield swapped, "swapped"
        else:
            yield sentence, "real"


def sentences_of(document: str) -> Iterator[str]:
    """The sentences of a document that are plain prose of 6 to 30 words; a line ends a sentence."""
    for line in document.split("\n"):
        for sentence in SENTENCE_END.split(line.strip()):
            if SENTENCE.fullmatch(sentence) and SHORTEST <= sentence.count(" ") + 1 <= LONGEST:
                yield sentence


def _exchangeable(sentence: str) -> list[tuple[re.Match[str], re.Match[str]]]:
    """Pairs of different words without a capital letter, in the order of the sentence."""
    words = [word for word in WORD.finditer(sentence) if word[0].islower()]
    return [(a, b) for a, b in combinations(words, 2) if a[0] != b[0]]


def _exchange(sentence: str, first: re.Match[str], second: re.Match[str]) -> str:
    before, after = sentence[: first.start()], sentence[second.end() :]
    return before + second[0] + sentence[first.end() : second.start()] + first[0] + after
