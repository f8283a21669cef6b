"""A machine that is like another but for what its file says."""

from collections.abc import Mapping
from functools import lru_cache

from .errors import SpecError, shown
from .files import is_path, load, version
from .renamed import latest

OWN = (
    "base",
    "name",
    "title",
    "hypothetical",
    "announced",
    "relatives",
    "alternatives",
    "fabrics",
)
"""Keys of a system file that say something of that machine alone."""


def cited(node: object) -> set[str]:
    """Names of the sources of all figures of some tables."""
    if isinstance(node, list):
        return set().union(*map(cited, node))
    if not isinstance(node, dict):
        return set()
    own = {source} if isinstance(source := node.get("source"), str) else set()
    return own.union(*map(cited, node.values()))


def _over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Tables merged key by key; a figure is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            figure = "value" in old or "value" in value
            merged[key] = value if figure else _over(old, value)
        else:
            merged[key] = value
    return merged


def _tiers(below: object, above: object) -> object:
    """The tiers that a file lists, each with what it leaves out of the base's one of
    that name."""
    if not isinstance(below, list) or not isinstance(above, list):
        return above
    named = {tier.get("name"): tier for tier in below if isinstance(tier, dict)}

    def over(tier: dict[str, object]) -> dict[str, object]:
        base = named.get(tier.get("name"), {})
        if "shape" in tier:  # says how many there are
            base = {key: value for key, value in base.items() if key != "size"}
        return _over(base, tier)

    return [over(tier) if isinstance(tier, dict) else tier for tier in above]


def with_base(raw: dict[str, object], where: str, depth: int = 0) -> dict[str, object]:
    """A system file with what it leaves out taken from the machine it names as `base`.

    Raises:
        SpecError: there is no such machine, or bases refer to each other.
    """
    base = raw.get("base")
    if not isinstance(base, str) or not base:
        return raw
    if depth > 3:
        raise SpecError([f"{where}: base{shown(base)}: bases in a row; name the first"])
    try:
        below = with_base(*load("systems", base), depth + 1)
    except SpecError as error:
        raise SpecError([f"{where}: base: {error}"]) from None
    kept = {key: value for key, value in below.items() if key not in OWN}
    merged = _over(kept, raw)
    if "tiers" in raw:
        merged["tiers"] = _tiers(below.get("tiers"), raw["tiers"])
    if "operations" in raw:
        merged["operations"] = latest(merged["operations"], raw["operations"])
    used = cited({key: value for key, value in merged.items() if key != "sources"})
    own, listed = raw.get("sources", {}), merged.get("sources", {})
    if isinstance(listed, dict) and isinstance(own, dict):
        merged["sources"] = {k: v for k, v in listed.items() if k in own or k in used}
    return merged


def versions(name: str) -> tuple[tuple[str, float], ...]:
    """A key for caches of systems: it changes when a user's file or one that it builds on
    does."""
    files = {}
    while name and name not in files:
        files[name] = key = version(name)
        name = _base_of(key)
    return tuple(files.values())


@lru_cache(maxsize=64)
def _base_of(key: tuple[str, float]) -> str:
    """The base of a user's file; empty for what ships, which doesn't change."""
    name = key[0]
    if not is_path(name):
        return ""
    try:
        base = load("systems", name)[0].get("base")
    except SpecError:  # reading it says what is wrong
        return ""
    return base if isinstance(base, str) else ""
