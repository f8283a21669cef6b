"""What building a scenario needs at every step, and small helpers for it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .._numbers import array, scalar
from ..job.workload import BYTES, Dtypes
from ..machine.resolve import MULTIPLIED, UNITS, Choices, release
from ..machine.runtimes import Engine, Trainer
from ..machine.system import System, ordered_tiers
from ..words import choose
from .errors import SpecError, shown
from .model_load import LoadedModel
from .scenario_file import Common


class Context(NamedTuple):
    """A scenario with its machine and model loaded."""

    scenario: Common
    system: System
    model: LoadedModel | None
    where: str

    @property
    def mixture(self) -> bool:
        """Whether the model has experts."""
        return self.model is not None and self.model.file.mixture is not None


def leaf(value: object) -> Array:
    """A float array: what pytrees hold."""
    if isinstance(value, float | int):
        return scalar(float(value))
    return jnp.asarray(value, float) if isinstance(value, Array) else array(value)


def pick(options: Mapping[str, object], name: str, key: str, where: str) -> str:
    """The name, if it is among the options. Raises `SpecError`."""
    if name not in options:
        raise SpecError(
            [f"{where}: {key}{shown(name)}: not there; {choose(name, options)}"]
        )
    return name


def dtypes_of(scenario: Common, activation: str = "bf16") -> Dtypes:
    """Formats by tensor class; weights, dispatch and indexers follow the activations."""
    apart = {"unpacking", "weights"}
    given = scenario.dtypes.model_dump(exclude_none=True, exclude=apart)
    activation = given.get("activation", activation)
    names = ("weight", "dispatch", "activation")
    defaults: dict[str, str] = dict.fromkeys(names, activation)
    defaults["indexer"] = activation
    if BYTES[activation] < 1.0:  # of V3.2's kernels, which engines keep, in 8 bits
        defaults["indexer"] = "int8" if activation.startswith("int") else "fp8"
    return Dtypes(**{**defaults, **given})


def dtype_of_file(model: LoadedModel | None, system: System) -> str:
    """What a model file computes in, where the machine does."""
    said = "bf16" if model is None else model.file.dtype
    return said if said in system.chip.matrix_flop_per_s else "bf16"


def module_bytes(scenario: Common, model: LoadedModel | None) -> dict[str, float]:
    """Bytes of a stored weight by module, where it isn't that of the job's format: as the
    file has them, unless the job has one for all, or as the job says."""
    dtypes = scenario.dtypes
    stored: dict[str, float] = {}
    if model is not None and dtypes.weight is None:
        stored = {str(module): size for module, size in model.file.weights.items()}
    return stored | {module: BYTES[name] for module, name in dtypes.weights.items()}


def unpacking_of(scenario: Common, system: System, activation: str) -> str:
    """Where weights narrower than activations are unpacked. Kernels for activations of 8
    bits or fewer (W4A8) widen the weights as they load them; those of 16 bits take them
    as the machine's kernels do."""
    usual = default(system, "unpacking") if BYTES[activation] > 1.0 else "fused"
    return scenario.dtypes.unpacking or usual


def unpacks(context: Context, dtypes: Dtypes) -> bool:
    """Whether some weights are narrower than activations, and are unpacked in memory
    before they are multiplied."""
    how = unpacking_of(context.scenario, context.system, dtypes.activation)
    stored = [BYTES[dtypes.weight]]
    stored += module_bytes(context.scenario, context.model).values()
    return how == "apart" and min(stored) < BYTES[dtypes.activation]


def expert_format(context: Context, dtypes: Dtypes) -> str:
    """What kernels for experts multiply, one of `EXPERT_FORMATS`."""
    given, model = context.scenario.dtypes, context.model
    size = module_bytes(context.scenario, model).get("experts", BYTES[dtypes.weight])
    if size >= BYTES[dtypes.activation]:
        return "plain"
    name = given.weights.get("experts") or given.weight
    integers = model is not None and model.file.integers
    return "integers" if (name or "int" * integers).startswith("int") else "floats"


def multiplied(dtypes: Dtypes) -> tuple[str, ...]:
    """Formats of what matrix units multiply, as a machine is resolved for them."""
    return tuple(getattr(dtypes, name) for name in MULTIPLIED)


def check_dtypes(names: dict[str, str], system: System, where: str) -> None:
    """Every dtype that matrix units compute in must have a peak. Raises `SpecError`."""
    peaks = system.chip.matrix_flop_per_s
    mistakes = [
        f"{where}: {key} = {name!r}: {system.name} has no matrix peak for it; use one"
        f" of {', '.join(peaks)}"
        for key, name in names.items()
        if name not in peaks and UNITS.get(name) not in peaks
    ]
    if mistakes:
        raise SpecError(mistakes)


def engine_of(scenario: Common, system: System, where: str) -> str:
    """The entry of the engine, and of its release, that a scenario names or that is the
    system's default. Raises `SpecError`."""
    return _release(scenario, system.engines, default(system, "engine"), where)


def framework_of(scenario: Common, system: System, where: str) -> str:
    """The entry of the training framework that a scenario names or that is the system's
    default; with `engine_version` that of its release. Without one it is the framework's
    own entry, not the newest: most published runs are of the releases before.

    Raises `SpecError`.
    """
    usual = default(system, "trainer")
    if scenario.engine_version is None:
        return pick(system.trainers, scenario.engine or usual, "engine", where)
    return _release(scenario, system.trainers, usual, where)


def _release(
    scenario: Common, runtimes: Mapping[str, Engine | Trainer], usual: str, where: str
) -> str:
    version = scenario.engine_version
    if scenario.engine is None and version is not None:
        raise SpecError(
            [f"{where}: engine_version = {version!r}: of which engine? Add engine"]
        )
    name = scenario.engine or usual
    pick(runtimes, name, "engine", where)
    try:
        return release(runtimes, name, version or "")
    except ValueError as error:
        raise SpecError([f"{where}: engine_version = {version!r}: {error}"]) from None


SERVES = ("decode", "prefill", "serve")


def limited(scenario: Common, system: System, where: str) -> System:
    """The system, its engine held to the limits that a scenario gives it.

    Raises:
        SpecError: nothing serves that could keep to them.
    """
    given = scenario.limits.model_dump(exclude_none=True)
    phase = getattr(scenario, "phase", "")
    if phase not in SERVES:
        said = [f"limits.{name}" for name in given]
        said += ["graphs"] if scenario.graphs else []
        said += ["dtypes.weights"] if scenario.dtypes.weights else []
        if said:
            why = f"no engine serves in phase {phase!r}; leave it out"
            raise SpecError([f"{where}: {key}: {why}" for key in said])
    if not given:
        return system
    name = engine_of(scenario, system, where)
    engine = system.engines[name].replace(**{k: leaf(v) for k, v in given.items()})
    return system.replace(engines={**system.engines, name: engine})


def usual(system: System) -> Choices:
    """What a job uses of the system unless it says otherwise."""
    expert = default(system, "expert")
    return Choices(
        collective_library=default(system, "collective"),
        expert_library=expert,
        expert_mode=next(iter(system.expert_parallel[expert])),
        engine=default(system, "engine"),
    )


def default(system: System, what: str) -> str:
    """Name of the default library, engine, trainer, or way to unpack weights."""
    return dict(system.defaults)[what]


def tier_sizes(system: System) -> list[float]:
    """Units that each tier joins, innermost first."""
    return [float(tier.size) for tier in ordered_tiers(system)]
