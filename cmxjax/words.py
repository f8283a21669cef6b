"""Words for people: the nearest known name, and foreign text shown as text."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_WORD = 80
"""Characters of somebody else's word, such as a wrong value, that a message repeats."""

LONGEST_LINE = 500
MOST_LINES = 20
MOST_CHARACTERS = 1900
"""Of a whole message, whatever the input."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ud800-\udfff]"
)
"""Control characters but tab and line feed, direction overrides, lone surrogates."""


def plain(text: str) -> str:
    """The text with what would steer a terminal written out, such as `\\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)


def cut(text: str, longest: int) -> str:
    """The text, or both of its ends where it is longer: a message names the place first
    and the remedy last."""
    if len(text) <= longest:
        return text
    head = 2 * longest // 3
    return f"{text[:head]} ... {text[head - longest :]}"


def message(lines: Iterable[str]) -> str:
    """Lines as one message, which doesn't grow with them: the first ones, and how many
    more there are."""
    every = list(lines)
    kept, room = [], MOST_CHARACTERS
    for line in every:
        line = cut(line, LONGEST_LINE)
        room -= len(line) + 1
        if room < 0 or (len(kept) == MOST_LINES - 1 and len(every) > MOST_LINES):
            break
        kept.append(line)
    if rest := len(every) - len(kept):
        kept.append(f"... and {rest} more")
    return "\n".join(kept)


_PART = re.compile("[-_.]")


def near(word: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like the word, the nearest first, or else of
    which a part does, as of `gb200-nvl72`."""
    lower: dict[str, str] = {}
    for name in known:
        lower.setdefault(name.lower(), name)
    word = word[:LONGEST_WORD].lower()
    if close := get_close_matches(word, lower):
        return [lower[name] for name in close]
    parts = [part for name in lower for part in _PART.split(name) if len(part) > 2]
    close = get_close_matches(word, parts, n=1, cutoff=0.75)
    return [name for low, name in lower.items() if set(close) & {*_PART.split(low)}][:3]


def hint(word: str, known: Iterable[str]) -> str:
    """`did you mean NAME? `, or nothing where no known name looks like the word."""
    found = near(word, known)
    return f"did you mean {' or '.join(found)}? " if found else ""


def choose(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest names, and all of them."""
    names = list(known)
    return f"{hint(word, names)}use one of {', '.join(names)}"
