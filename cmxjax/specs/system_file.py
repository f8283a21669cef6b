"""What a system file may say."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from ..job.workload import BYTES
from ..machine.libraries import ALGORITHMS
from ..machine.resolve import NUMBERS
from ..machine.runtimes import EXPERT_FORMATS
from ..rates.torus import LONGEST
from .figures import Figure, Info, Leaves, Source, Strict, Text, mistakes_of
from .renamed import NOW, in_place

if TYPE_CHECKING:
    Algorithm = str
    Dtype = Name = str
else:
    Algorithm = Literal[ALGORITHMS]
    Dtype = Literal[tuple(BYTES)]
    Name = Annotated[str, StringConstraints(pattern=r"^[\w-]+$")]
    """Part of a leaf's dotted path."""


GraphMode = Literal["whole", "piecewise", "eager"]
"""How an engine launches the kernels of a layer."""


if TYPE_CHECKING:
    ExpertFormat = str
else:
    ExpertFormat = Literal[EXPERT_FORMATS]


class ChipSpec(Leaves):
    matrix_flop_per_s: dict[Dtype, Figure] = Field(min_length=1)
    vector_flop_per_s: Figure
    exponential_flop_per_s: Figure
    memory_bytes: Figure
    memory_usable_bytes: Figure | None = None
    """Where nothing is stated, all of the memory is usable."""
    memory_reported_ratio: Figure
    memory_bytes_per_s: Figure
    matrix_cores: Figure
    tile_rows: Figure
    tile_columns: Figure
    gemm_efficiency: Figure
    eight_bit_efficiency: Figure
    four_bit_efficiency: Figure
    attention_efficiency: Figure
    memory_efficiency: Figure
    vector_efficiency: Figure
    half_rows: Figure
    half_columns: Figure
    half_depth: Figure
    half_memory_bytes: Figure
    attention_fill_s: Figure
    choice_s: Figure
    gather_passes: Figure
    roofline_exposed_fraction: Figure
    matrix_launch_s: Figure
    vector_launch_s: Figure
    four_bit_launch_s: Figure
    expert_start_s: Figure
    expert_passes: Figure
    depth_latency_s: Figure
    core_exponent: Figure


Side = Annotated[int, Field(ge=1, le=LONGEST)]


class TierSpec(Leaves):
    name: Name
    plane: Text
    topology: Literal["tree", "mesh", "torus"] = "tree"
    """Switches, whose uplinks `oversubscription` divides; a link for each pair; or links
    to the neighbors along the dimensions of `shape`."""
    mesh: bool = False
    """A link joins each pair, so that a group has only those between its ranks: the same
    as topology = "mesh"."""
    shape: list[Side] = Field([], max_length=6, validate_default=True)
    """Of a torus, the units of the tier below along each dimension; size is their
    product."""
    wrap: bool | Side = True
    """Of a torus, whether a dimension goes around; a number where optical switches close
    a group's line of so many units or more."""
    reduces: bool = False
    """Its switches add up what they pass on (NVLink SHARP)."""
    size: Figure
    bytes_per_s: Figure
    latency_s: Figure
    efficiency: Figure
    oversubscription: Figure
    """What a unit's devices send up over what its uplinks carry. Where all send at once
    each has its share of them; a single ring crosses by one device of each unit."""

    @field_validator("mesh", "shape", "reduces")
    @classmethod
    def _fits_topology(cls, value: object, info: Info) -> object:
        torus, is_shape = info.data.get("topology") == "torus", info.field_name == "shape"
        if torus and is_shape and not value:
            raise ValueError("missing; write the sides of the torus, such as [16, 16]")
        if value and torus and not is_shape:
            raise ValueError('topology = "torus" has none; leave one of them out')
        if value and is_shape and not torus:
            raise ValueError('of a torus; write topology = "torus" too')
        return value

    @field_validator("size")
    @classmethod
    def _fills_shape(cls, size: Figure, info: Info) -> Figure:
        shape = info.data.get("shape")
        if shape and size.si != math.prod(shape):
            raise ValueError(
                f"value = {size.value:g}: shape = {shape} has {math.prod(shape)}; leave"
                " size out or make them agree"
            )
        return size

    @property
    def closes(self) -> tuple[int, ...]:
        """Units from which on a line along each dimension of a torus is a ring."""
        if self.wrap is True:
            return tuple(self.shape)
        return tuple(self.wrap or 2 * LONGEST for _ in self.shape)


class EndpointSpec(Leaves):
    read_efficiency: Figure
    write_efficiency: Figure
    latency_s: Figure
    write_latency_s: Figure


class SideLinkSpec(Leaves):
    bytes_per_s: Figure
    memory_bytes_per_s: Figure
    latency_s: Figure
    efficiency: Figure


class CollectiveLibrarySpec(Leaves):
    algorithms: list[Algorithm] = Field(
        default=["direct", "striped_ring", "tree"], min_length=1
    )
    pipelined: bool = False
    start_s: Figure
    step_s: Figure
    efficiency: Figure
    small_efficiency: Figure
    reduce_efficiency: Figure
    switch_efficiency: Figure
    chunk_s: Figure
    protocol_s: Figure
    protocol_bytes: Figure
    protocol_exposed_fraction: Figure
    network_start_s: Figure
    network_chunk_s: Figure
    sdma_slowdown: Figure


class ExpertModeSpec(Leaves):
    plane: str = ""
    deduplicates: bool = False
    gathers: bool = False
    fused_exposed_fraction: Figure | None = None
    dispatch_start_s: Figure
    combine_start_s: Figure
    jitter_s: Figure
    spread: Figure
    efficiency: Figure
    dispatch_copy_s: Figure
    combine_copy_s: Figure
    dispatch_peer_s: Figure
    combine_peer_s: Figure
    dispatch_least_s: Figure
    combine_least_s: Figure
    cores: Figure
    dispatch_core_s: Figure
    combine_core_s: Figure
    core_bytes_per_s: Figure
    sdma_slowdown: Figure
    scale_slot_bytes: Figure
    scale_share: Figure
    core_share: Figure


if TYPE_CHECKING:
    ModesSpec = dict[str, ExpertModeSpec]
else:
    ModesSpec = Annotated[
        dict[Literal["low_latency", "normal"], ExpertModeSpec], Field(min_length=1)
    ]


class EngineSpec(Leaves):
    partitions_cores: bool = False
    graphs: GraphMode = "whole"
    prefill_graphs: GraphMode = "eager"
    exchange: dict[str, str] = {}
    """Libraries of expert exchanges that it uses, by the version that brought each."""
    release_of: str = ""
    since: str = ""
    decode_step_s: Figure
    sequence_s: Figure
    draft_step_s: Figure
    prefill_batch_s: Figure
    prompt_token_s: Figure
    launch_s: dict[GraphMode, Figure]
    agreement_s: Figure
    host_exposed_fraction: Figure
    chunk_exposed_fraction: Figure
    rank_wait_fraction: Figure
    shared_launch_fraction: Figure
    max_sequences: Figure
    max_tokens_per_step: Figure
    memory_fraction: Figure
    head_ways: Figure
    matrix_rate_factor: Figure
    expert_rate_factor: Figure
    expert_format_factor: dict[ExpertFormat, Figure]
    wait_excess: Figure
    stream_exposed_fraction: Figure
    prefill_stream_exposed_fraction: Figure
    routing_skew: Figure
    routing_spread: Figure
    prefill_routing_skew: Figure


class TrainerSpec(Leaves):
    context: Literal["ring", "all_to_all"] = "ring"
    stages: Literal["even", "by_cost", "with_ends"] = "even"
    keeps_working_gradients: bool = False
    casts_weights: bool = False
    balances_ring: bool = True
    gradient: Literal["fp32", "weight"] = "fp32"
    gathers: Literal["striped", "one_port", "by_owner"] = "striped"
    exchange: str = ""
    """Library of expert exchanges that it uses; empty: the system's."""
    release_of: str = ""
    since: str = ""
    launch_s: Figure
    layer_host_s: Figure
    tensor_host_s: Figure
    message_host_s: Figure
    owner_message_s: Figure
    step_s: Figure
    jitter_fraction: Figure
    tensor_forward_exposed_fraction: Figure
    tensor_backward_exposed_fraction: Figure
    context_exposed_fraction: Figure
    expert_exposed_fraction: Figure
    pipeline_exposed_fraction: Figure
    data_exposed_fraction: Figure
    offload_exposed_fraction: Figure
    matrix_rate_factor: Figure
    attention_rate_factor: Figure
    vector_rate_factor: Figure
    recurrent_rate_factor: Figure
    backward_attention_efficiency: Figure
    biased_gate_bytes: Figure
    narrow_efficiency: Figure
    wait_excess: Figure
    routing_skew: Figure
    memory_overhead_bytes: Figure
    logit_bytes: Figure
    activation_slack: Figure


class FabricRateSpec(Leaves):
    rate_factor: Figure
    node_exponent: Figure


class OperationsSpec(Leaves):
    package_mtbf_s: Figure
    host_mtbf_s: Figure
    optical_module_mtbf_s: Figure
    host_packages: Figure
    restart_s: Figure
    package_hour_usd: Figure
    device_mtbf_s: Figure | None = None
    """Of a device with its share of everything else, instead of those of components."""
    device_hour_usd: Figure | None = None
    """Instead of the price of a package."""


class PowerSpec(Leaves):
    all_in_w: Figure
    network_w: Figure
    idle_fraction: Figure
    memory_share: Figure


class PartsSpec(Leaves):
    cpus: Figure
    switches: Figure
    optical_modules: Figure
    scale_up_optical_modules: Figure


class Alternative(Strict):
    """Other published values for some leaves, chosen by `system.alternatives`."""

    note: str
    self_consistent: bool
    """Whether these values agree with each other and with the totals they support."""
    set: dict[str, Figure] = Field(min_length=1)

    @field_validator("set")
    @classmethod
    def _dimensions(cls, figures: dict[str, Figure]) -> dict[str, Figure]:
        if problems := mistakes_of(figures):
            raise ValueError("\n".join(problems))
        return figures


_REFERENCES = {
    "scale_up_tier": "tiers",
    "package_tier": "tiers",
    "default_collective": "collectives",
    "default_expert": "expert_parallel",
    "default_engine": "engines",
    "default_trainer": "trainers",
}


def names_in(raw: Mapping[str, object]) -> dict[str, object]:
    """What a system file's own keys may refer to, for its validation context.

    They are read before validation, so that a wrong reference is found whatever else
    is wrong.
    """
    tiers = raw.get("tiers")
    listed = tiers if isinstance(tiers, list) else []
    named = [tier for tier in listed if isinstance(tier, dict)]
    tables = {key: raw.get(key) for key in set(_REFERENCES.values())}
    names: dict[str, object] = {
        key: list(table) if isinstance(table, dict) else None
        for key, table in tables.items()
    }
    return names | {"tiers": [str(tier.get("name")) for tier in named] or None}


class SystemFile(Strict):
    """A machine: device, tiers, software, parts. Leaves left out take the defaults."""

    name: Text
    title: Text
    base: str = ""
    """The machine, shipped or a path, that this one is like but for what is said here."""
    hypothetical: bool = False
    """Neither built nor announced: rumors and extrapolation."""
    announced: bool = False
    """Its figures are its maker's plans, projections and first product pages, whatever
    its efficiencies rest on."""
    package_tier: str = ""
    scale_up_tier: str
    default_collective: str
    serving_collective: str = ""
    """The library inside serving steps; empty for the default one."""
    default_expert: str
    default_engine: str
    default_trainer: str
    relatives: list[Text] = []
    """Systems whose calibrations say most about this one: its chip, libraries, exchanges
    and engines are like theirs until its own rows say otherwise."""
    default_unpacking: Literal["fused", "apart"] = "fused"
    """Whether kernels unpack weights narrower than activations where they multiply them,
    or apart: matrix and vector units that share no memory but the device's."""
    sources: dict[str, Source]
    chip: ChipSpec
    tiers: list[TierSpec] = Field(min_length=1)
    endpoints: dict[Literal["npu", "cpu"], EndpointSpec]
    links: dict[Name, SideLinkSpec]
    collectives: dict[Name, CollectiveLibrarySpec] = Field(min_length=1)
    expert_parallel: dict[Name, ModesSpec] = Field(min_length=1)
    engines: dict[Name, EngineSpec] = Field(min_length=1)
    trainers: dict[Name, TrainerSpec] = Field(min_length=1)
    fabrics: dict[Name, FabricRateSpec]
    operations: OperationsSpec
    power: PowerSpec
    parts: PartsSpec
    alternatives: dict[str, Alternative] = {}

    @field_validator(*_REFERENCES)
    @classmethod
    def _there(cls, name: str, info: Info) -> str:
        field = info.field_name or ""
        names = (info.context or {}).get(_REFERENCES[field])
        optional = field == "package_tier" and not name
        if names is not None and name not in names and not optional:
            raise ValueError(f"not there; use one of {', '.join(names)}")
        return name

    @field_validator("tiers")
    @classmethod
    def _distinct(cls, tiers: list[TierSpec]) -> list[TierSpec]:
        names = [tier.name for tier in tiers]
        if len(set(names)) != len(names):
            raise ValueError(f"names repeat in {', '.join(names)}; give each its own")
        return tiers

    @field_validator("expert_parallel")
    @classmethod
    def _planes_exist(
        cls, named: dict[str, dict[str, ExpertModeSpec]], info: Info
    ) -> dict:
        planes = ["", *(tier.plane for tier in info.data.get("tiers", []))]
        problems = [
            f"{library}.{mode}.plane = {spec.plane!r}: no tier is on it; use one of"
            f" {', '.join(dict.fromkeys(planes[1:]))}"
            for library, modes in named.items()
            for mode, spec in modes.items()
            if spec.plane not in planes and "tiers" in info.data
        ]
        problems += [
            f"{library}.{mode}.deduplicates: tokens cross the outermost of several tiers"
            " once and spread inside it, which needs two tiers and no plane for all"
            " traffic; leave it or plane out"
            for library, modes in named.items()
            for mode, spec in modes.items()
            if spec.deduplicates
            and (spec.plane or len(info.data.get("tiers", "two")) < 2)
        ]
        problems += [
            f"{library}.{mode}.gathers: all ranks get all tokens over all tiers, each"
            " once; leave it or plane and deduplicates out"
            for library, modes in named.items()
            for mode, spec in modes.items()
            if spec.gathers and (spec.plane or spec.deduplicates)
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return named

    @field_validator("engines")
    @classmethod
    def _exchanges_exist(cls, named: dict[str, EngineSpec], info: Info) -> dict:
        known = info.data.get("expert_parallel") or {}
        used = {
            way: name for name in reversed(named) for way in named[name].exchange.items()
        }
        problems = [
            f"{engine}.exchange[{since!r}] = {library!r}: not in expert_parallel; use one"
            f" of {', '.join(known)}"
            for (since, library), engine in used.items()
            if known and library not in known
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return named

    @field_validator("trainers")
    @classmethod
    def _trainers_exchange(
        cls, named: dict[str, TrainerSpec], info: Info
    ) -> dict[str, TrainerSpec]:
        known = info.data.get("expert_parallel") or {}
        problems = [
            f"{trainer}.exchange = {spec.exchange!r}: not in expert_parallel; use one of"
            f" {', '.join(known)}"
            for trainer, spec in named.items()
            if known and spec.exchange and spec.exchange not in known
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return named

    @field_validator("engines", "trainers")
    @classmethod
    def _releases_are_of_entries(cls, named: dict, info: Info) -> dict:
        problems = []
        for name, spec in named.items():
            if spec.release_of and spec.release_of not in named:
                said = (
                    f"{name}.release_of = {spec.release_of!r}: not in {info.field_name}"
                )
                problems.append(f"{said}; use one of {', '.join(named)}")
            if bool(spec.release_of) != bool(NUMBERS.match(spec.since)):
                said = f"{name}.since = {spec.since!r}: must begin with numbers such as"
                problems.append(f"{said} 0.15.1, and stand beside release_of")
        if problems:
            raise ValueError("\n".join(problems))
        return named

    @field_validator("alternatives")
    @classmethod
    def _leaves_exist(
        cls, alternatives: dict[str, Alternative], info: Info
    ) -> dict[str, Alternative]:
        if any(section not in info.data for section in SECTIONS):
            return alternatives
        known = figures_in(info.data)
        problems = [
            f"{name}.set.{path}: no such leaf; `cmxjax show` lists them"
            for name, alternative in alternatives.items()
            for path in alternative.set
            if path not in known and path not in NOW
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return alternatives


SECTIONS = (
    "chip",
    "tiers",
    "endpoints",
    "links",
    "collectives",
    "expert_parallel",
    "engines",
    "trainers",
    "fabrics",
    "operations",
    "power",
    "parts",
)
"""Keys of a system file that hold leaves."""


def figures_of(file: SystemFile) -> dict[str, Figure]:
    """Every figure of the file by leaf path, alternatives not included."""
    return in_place(figures_in(vars(file)), file.package_tier)


def figures_in(sections: Mapping[str, object]) -> dict[str, Figure]:
    """Every figure under a system file's validated sections, by leaf path."""
    figures: dict[str, Figure] = {}

    def visit(path: str, node) -> None:
        if isinstance(node, Figure):
            figures[path] = node
        elif isinstance(node, Strict):
            for name, value in node:
                visit(f"{path}.{name}" if path else name, value)
        elif isinstance(node, dict):
            for name, value in node.items():
                visit(f"{path}.{name}", value)
        elif isinstance(node, list):
            for tier in (item for item in node if isinstance(item, TierSpec)):
                visit(f"{path}.{tier.name}", tier)

    for section in SECTIONS:
        visit(section, sections[section])
    figures.setdefault("chip.memory_usable_bytes", figures["chip.memory_bytes"])
    return figures
