"""What parts of a machine may change and what each of them costs."""

from collections.abc import Iterable

from pydantic import Field, ValidationError, field_validator

from ..parameters import is_fraction
from ..units import UNITS
from .errors import SpecError, explain
from .figures import Figure, Number, Positive, Source, Strict, Text, listing
from .files import load
from .recipe_file import matches


class ResourceSpec(Strict):
    """A part of the machine; its multiplier is 1 as things are."""

    leaves: list[Text] = []
    """Dotted paths such as `system.chip.memory_bytes_per_s`; `*` stands for any name."""
    power: Number = 1.0
    """A leaf is multiplied by the multiplier to this power: -1 for a latency."""
    low: Positive = 0.25
    high: Positive = 4.0
    """Multipliers that can be built."""
    note: Text | None = None


class ItemSpec(Figure):
    """What is spent on one thing as the machine is, and what that grows with."""

    scales: dict[str, Number] = {}
    """Resource to exponent: the item costs its value times each multiplier to it."""

    @field_validator("value")
    @classmethod
    def _spent(cls, value: float) -> float:
        if not value > 0.0:
            raise ValueError("must be greater than 0; leave out what costs nothing")
        return value


class BudgetSpec(Strict):
    """Resources of a machine and what is spent on them: power, money or area."""

    title: Text
    system: Text
    budget: Figure | None = None
    """What may be spent; without it, what the items cost as the machine is."""
    resources: dict[str, ResourceSpec] = Field(min_length=1)
    items: dict[str, ItemSpec] = Field(min_length=1)
    sources: dict[str, Source]

    @property
    def present(self) -> float:
        """What the machine costs as it is, in SI."""
        return sum(item.si for item in self.items.values())

    @property
    def amount(self) -> float:
        """The budget in SI."""
        return self.present if self.budget is None else self.budget.si

    @property
    def dimension(self) -> str:
        return UNITS[next(iter(self.items.values())).unit].dimension


def load_budget(name: str) -> BudgetSpec:
    """A shipped budget by name or a user's by path.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("budgets", name)
    try:
        spec = BudgetSpec.model_validate(raw, context=listing(raw))
    except ValidationError as error:
        raise SpecError(explain(error, where, BudgetSpec)) from None
    if mistakes := [f"{where}: {problem}" for problem in _mistakes(spec)]:
        raise SpecError(mistakes)
    return spec


def _mistakes(spec: BudgetSpec) -> Iterable[str]:
    names = ", ".join(spec.resources)
    for name, item in spec.items.items():
        for resource in item.scales:
            if resource not in spec.resources:
                yield (
                    f"items.{name}.scales.{resource}: no such resource; use one of"
                    f" {names}"
                )
    figures: dict[str, Figure] = {
        f"items.{name}": item for name, item in spec.items.items()
    }
    if spec.budget is not None:
        figures["budget"] = spec.budget
    for name, figure in figures.items():
        if UNITS[figure.unit].dimension != spec.dimension:
            first = next(iter(spec.items.values())).unit
            yield f"{name}.unit = {figure.unit!r}: must be of one kind with {first!r}"
    if spec.budget is not None and not spec.budget.value > 0.0:
        yield f"budget.value = {spec.budget.value:g}: must be greater than 0"
    for name, resource in spec.resources.items():
        if not resource.low <= 1.0 <= resource.high or resource.low == resource.high:
            yield (
                f"resources.{name}: low = {resource.low:g} and high = {resource.high:g}:"
                " must differ and hold 1, the machine as it is"
            )


def unpriced(spec: BudgetSpec) -> list[str]:
    """Resources that cost nothing, or less the more there is of them, with a remedy."""
    problems = []
    for name in spec.resources:
        powers = [item.scales.get(name, 0.0) for item in spec.items.values()]
        if not any(power > 0.0 for power in powers):
            problems.append(
                f"resources.{name}: no item costs more with it, so there is no limit to"
                f" it; give an item scales = {{ {name} = 1 }}"
            )
        elif any(power < 0.0 for power in powers):
            problems.append(
                f"resources.{name}: an item costs less the more there is of it; use"
                " exponents of at least 0"
            )
    return problems


def leaves_named(
    spec: BudgetSpec, known: Iterable[str], where: str
) -> dict[str, list[str]]:
    """The leaves of each resource with its patterns resolved.

    Args:
        known: dotted paths of the machine's leaves, from `system.` on.
        where: the file, for messages.

    Raises:
        SpecError: a pattern names no leaf or a fraction, or two resources share a leaf.
    """
    paths, mistakes = list(known), []
    named: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for name, resource in spec.resources.items():
        label = f"{where}: resources.{name}.leaves"
        leaves: list[str] = []
        for pattern in resource.leaves:
            hits = [path for path in paths if matches(path, pattern)]
            if not hits:
                mistakes.append(
                    f"{label}: {pattern!r}: {spec.system} has no such leaf; see"
                    f" `cmxjax show {spec.system}`"
                )
            leaves += hits
        for path in leaves:
            if is_fraction(path):
                mistakes.append(
                    f"{label}: {path}: a share can't be multiplied; leave it out"
                )
            if path in owner:
                mistakes.append(f"{label}: {path} belongs to {owner[path]} too")
            owner[path] = name
        named[name] = leaves
    if mistakes:
        raise SpecError(mistakes)
    return named
