"""Constraints compute what they say, and nothing else can be said in them."""

import numpy as np
import pytest

from cmxjax.sweeps.expression import parse

COLUMNS = {
    "layout.tp": np.array([1.0, 2.0, 4.0, 8.0]),
    "layout.ep": np.array([64.0, 32.0, 8.0, 16.0]),
    "system": np.array(["a", "b", "a", "c"], object),
    "system.engines.vllm-ascend.x": np.array([1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layout.tp * layout.ep <= 64", [1, 1, 1, 0]),
        ("2 <= layout.tp < 8", [0, 1, 1, 0]),
        ("layout.ep % (layout.tp * 8) == 0 and not layout.tp == 1", [0, 1, 0, 0]),
        ("layout.tp == 1 or layout.ep > 30", [1, 1, 0, 0]),
        ("max(layout.tp, 4) ** 2 + min(layout.ep, 10) >= 26", [1, 1, 0, 1]),
        ("log2(layout.ep // 8) == 1", [0, 0, 0, 1]),
        ("system == 'a'", [1, 0, 1, 0]),
        ("system != 'a' and layout.tp > 2", [0, 0, 0, 1]),
        ("key('system.engines.vllm-ascend.x') > 2", [0, 0, 1, 1]),
        ("-layout.tp > -2", [1, 0, 0, 0]),
    ],
)
def test_a_constraint_holds_where_it_says(text, expected):
    found = parse(text)
    assert set(found.keys) <= set(COLUMNS)
    assert found.holds(COLUMNS).astype(int).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "layout.tp.__class__()",
        "[x for x in layout]",
        "lambda: 1",
        "open('f')",
        "layout['tp'] > 1",
        "f'{layout}'",
        "(layout := 1) > 0",
        "layout.tp >",
        "(" * 1000,
        "layout.tp if layout.ep else 1",
        "min(layout.tp, *layout) > 1",
        "",
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="not an expression|not understood"):
        parse(text)


@pytest.mark.parametrize("text", ["system > 1", "system * 2 > 1", "layout.tp == 'a'"])
def test_texts_and_numbers_are_not_compared(text):
    with pytest.raises(ValueError, match="text"):
        parse(text).holds(COLUMNS)


def test_a_value_is_no_constraint():
    with pytest.raises(ValueError, match="no comparison"):
        parse("layout.tp * 2").holds(COLUMNS)
