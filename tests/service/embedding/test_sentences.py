"""Sentences by punctuation: worked examples, and what holds for any text."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from service.embedding.sentences import sentences

# Where each is cut is marked by a bar.
EXAMPLES = [
    "One.| Two!| Three?| Four",
    "no upper case .| none at all .| so lower case says nothing .| e.g. this",
    # Abbreviations, titles, initials
    "Dr. Smith met Mrs. J. K. Doe of Acme Inc. in St. Louis.| They left at 5 p.m. on Friday.",
    "See Fig. 3 and Eqs. (4) and (5), cf. Sec. 2.| The rest follows, e.g. by symmetry, i.e. at once.",
    "The U.S. Senate sat.| It was made in the U.S.| The rest was not.",
    "It cost 5 ft. of wood.| He has a Ph.D. from Bonn.| She said no.| Then he asked for No. 5.",
    "Das gilt z.B. für Wasser.| Frau Dr. Meier kam am 3.| Sie blieb.",
    # Numbers
    "Pi is 3.14159 and .5 is a half.| In 1990.| 20 came.| Version 2.0.1 is out.",
    "1. First item.| 2. Second item.| IV. Fourth.",
    "See www.example.com or a.b@c.de for v1.2.| Done.",
    # Ellipses
    "Wait... what?| No.| Well\u2026 perhaps.| He left...| She stayed.| So . . . what now?",
    # Quotes and brackets
    '"Really?" he asked.| "Yes."| She nodded.| \u201cGo!\u201d he cried.| \u201cNow.\u201d',
    "Il dit\u00a0: \u00abOui.\u00bb| (It was late.)| Good.",
    "'Stop!'| He did (at last!) stop.| [Sic.]| End",
    "What?!| No way!!| Really\u203d| Yes.",
    # Other scripts
    "他来了。|“好的”。|他走了\uff01|你呢\uff1f|完",
    "これは文です。|「はい。」と彼は言った。|次の文\uff0e|終わり",
    "你好!|我是小明.|再见",
    "圆周率是３\uff0e\uff11\uff14。|好",
    "यह एक वाक्य है।| यह दूसरा है।|तीसरा",
    "هل هذا سؤال؟| نعم.| هذا جواب\u06d4| حسنا",
    # Lines
    "A title\n\n|The text is wrapped\nhere and goes on.|\r\nNext.\r\n\r\n|Last",
    "To do:\n|- one\n|- two\n|  * three\n|4. four\nwrapped",
    "Page one\f|page two\u2029|paragraph",
    # Characters of several code points
    "Great!| \U0001f468\u200d\U0001f469\u200d\U0001f467 Yes.| \U0001f1e9\U0001f1ea.| E\u0301.| Fine",
    "a.\u0301 b. \u0301c",
]


def shown(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize("marked", EXAMPLES)
def test_examples(marked):
    assert shown(marked.replace("|", "")) == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\u3000\n"])
def test_no_text_has_no_sentence(text):
    assert sentences(text) == []


PIECES = [
    ".",
    "!",
    "?",
    "\u2026",
    "。",
    "\uff01",
    "।",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\f",
    '"',
    "\u201d",
    "」",
    ")",
    "(",
    "- ",
]
PIECES += ["Dr", "e.g", "A", "word", "Word", "1", "3.4", "好", "は", "e\u0301", "\u0301", "\u200d", "\ufe0f", "क्षि"]
PIECES += [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\U0001f44d\U0001f3fd",
    "!\ufe0f\u20e3",
]


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40))
def test_every_character_is_in_one_sentence_and_none_is_split(text):
    found = sentences(text)
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    before = 0
    for start, end in found:
        assert before <= start < end
        assert not text[before:start].strip()
        assert {start, end} <= edges
        assert text[start:end].strip()
        before = end
    assert not text[before:].strip()


@given(st.lists(st.sampled_from(["One two.", "Is it?", "He came!", "They went."]), min_size=1, max_size=9), st.data())
def test_white_space_between_sentences_changes_nothing(parts, data):
    spaces = st.sampled_from([" ", "  ", "\n", "\t", "\n\n", " \r\n "])
    text = parts[0] + "".join(data.draw(spaces) + part for part in parts[1:])
    assert shown(text) == parts


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        ". ",
        "a.",
        "B. ",
        "Mr. ",
        '."',
        "\n",
        " ",
        "(",
        "。",
        "。)",
        "!\u0301",
        ".\u200d",
        "1. ",
        "\n- ",
        "X",
        "\r\n\n",
    ],
)
def test_no_text_takes_long(unit):
    """A pattern that looks again and again at the same characters would not come to an end here."""
    text = unit * (100_000 // len(unit))
    for one in (text, text + "x", f". {text}x"):
        sentences(one)
