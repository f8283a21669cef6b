"""Constraints: simple expressions over keys, such as `layout.tp * layout.ep <= 64`.

They are read with Python's own parser and evaluated here on whole columns; nothing else
of the language is accepted.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

Values = Mapping[str, np.ndarray]

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type, Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable] = {
    "min": lambda *x: reduce(np.minimum, x),
    "max": lambda *x: reduce(np.maximum, x),
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "log2": np.log2,
}
KEY = "key"
"""`key("system.engines.vllm-ascend.decode_step_s")` is a key with a hyphen."""


class Expression(NamedTuple):
    """A parsed constraint."""

    text: str
    keys: tuple[str, ...]
    tree: ast.expr

    def holds(self, values: Values) -> np.ndarray:
        """Where it holds.

        Args:
            values: columns of one shape, or of shapes that broadcast, by key.

        Raises:
            ValueError: a text is compared with a number, or computed with.
        """
        with np.errstate(all="ignore"):
            try:
                found = np.asarray(_evaluated(self.tree, values))
            except (TypeError, np.exceptions.DTypePromotionError):
                said = "computes with a text; compare texts by == or !="
                raise ValueError(said) from None
        if found.dtype != bool:
            raise ValueError("is no comparison; write one such as layout.tp <= 8")
        return found


def parse(text: str) -> Expression:
    """Parse a constraint.

    Raises:
        ValueError: it is none, with what is wrong.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            "not an expression; write one such as layout.tp * layout.ep <= 64"
        ) from None
    keys: dict[str, None] = {}
    _check(tree, keys)
    return Expression(text, tuple(keys), tree)


def _key_of(node: ast.AST) -> str | None:
    """The dotted key that a node names, if it does."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _key_of(node.value)
        return None if above is None else f"{above}.{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == KEY and len(node.args) == 1:
            (argument,) = node.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                return argument.value
    return None


def _check(node: ast.AST, keys: dict[str, None]) -> None:
    """Raises ValueError for what is no part of an expression; notes its keys."""
    if (key := _key_of(node)) is not None:
        keys[key] = None
        return
    if isinstance(node, ast.Constant) and isinstance(
        node.value, str | bool | int | float
    ):
        return
    parts: list[ast.AST] | None = None
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        parts = [node.operand]
    elif isinstance(node, ast.BoolOp):
        parts = [*node.values]
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _FUNCTIONS and node.args and not node.keywords:
            parts = [*node.args]
    if parts is None:
        known = ", ".join(_FUNCTIONS)
        raise ValueError(
            f"{ast.unparse(node)!r} is not understood; use keys, numbers, + - * / // %"
            f" **, comparisons, and, or, not, and {known}"
        )
    for part in parts:
        _check(part, keys)


def _evaluated(node: ast.AST, values: Values):
    if (key := _key_of(node)) is not None:
        return values[key]
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _evaluated(node.left, values), _evaluated(node.right, values)
        if isinstance(right, int) and isinstance(node.op, ast.Pow):
            right = float(right)
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp):
        value = _evaluated(node.operand, values)
        return np.logical_not(value) if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.BoolOp):
        joined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return reduce(joined, [_evaluated(part, values) for part in node.values])
    if isinstance(node, ast.Compare):
        sides = [_evaluated(part, values) for part in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:])
        found = [_compared(_COMPARE[type(op)], a, b) for op, a, b in pairs]
        return reduce(np.logical_and, found)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*(_evaluated(part, values) for part in node.args))


def _compared(compare: Callable, one, other):
    """A comparison; of a number with a text it is refused rather than false."""
    if _is_text(one) != _is_text(other):
        raise TypeError("a number and a text")
    return compare(np.asarray(one), np.asarray(other))


def _is_text(value) -> bool:
    return np.asarray(value).dtype.kind in "UO"
