"""What a system file may say."""

from typing import Literal

from pydantic import Field, model_validator

from .figures import Figure, Leaves, Source, Strict


class ChipSpec(Leaves):
    matrix_flop_per_s: dict[str, Figure] = Field(min_length=1)
    vector_flop_per_s: Figure
    memory_bytes: Figure
    memory_usable_bytes: Figure | None = None
    memory_bytes_per_s: Figure
    matrix_cores: Figure
    vector_cores: Figure
    tile_rows: Figure
    tile_columns: Figure
    gemm_efficiency: Figure
    attention_efficiency: Figure
    memory_efficiency: Figure
    vector_efficiency: Figure
    half_rows: Figure
    half_columns: Figure
    half_depth: Figure
    half_memory_bytes: Figure
    roofline_exposed_fraction: Figure
    matrix_launch_s: Figure
    vector_launch_s: Figure
    core_exponent: Figure


class TierSpec(Leaves):
    name: str
    plane: str
    size: Figure
    bytes_per_s: Figure
    latency_s: Figure
    efficiency: Figure
    oversubscription: Figure


class EndpointSpec(Leaves):
    read_efficiency: Figure
    write_efficiency: Figure
    latency_s: Figure
    write_latency_s: Figure


class SideLinkSpec(Leaves):
    bytes_per_s: Figure
    latency_s: Figure
    efficiency: Figure


Algorithm = Literal["direct", "ring", "striped_ring", "staged", "tree"]


class CollectiveLibrarySpec(Leaves):
    algorithms: list[Algorithm] = Field(
        default=["direct", "striped_ring", "tree"], min_length=1
    )
    start_s: Figure
    step_s: Figure
    efficiency: Figure
    reduce_efficiency: Figure
    protocol_s: Figure
    protocol_bytes: Figure
    protocol_exposed_fraction: Figure
    sdma_slowdown: Figure
    core_share: Figure


class ExpertModeSpec(Leaves):
    plane: str = ""
    deduplicates: bool = False
    dispatch_start_s: Figure
    combine_start_s: Figure
    jitter_s: Figure
    efficiency: Figure
    dispatch_copy_s: Figure
    combine_copy_s: Figure
    sdma_slowdown: Figure


class EngineSpec(Leaves):
    partitions_cores: bool = False
    decode_step_s: Figure
    draft_step_s: Figure
    prefill_batch_s: Figure
    wait_excess: Figure
    attention_core_share: Figure
    stream_exposed_fraction: Figure
    routing_skew: Figure


class PowerSpec(Leaves):
    all_in_w: Figure
    network_w: Figure
    idle_fraction: Figure


class PartsSpec(Leaves):
    cpus: Figure
    switches: Figure
    optical_modules: Figure


class Alternative(Strict):
    """Other published values for some leaves, chosen by `system.alternatives`."""

    note: str
    self_consistent: bool
    """Whether these values agree with each other and with the totals they support."""
    set: dict[str, Figure] = Field(min_length=1)


class SystemFile(Strict):
    """A machine: device, tiers, software, parts. Leaves left out take the defaults."""

    name: str
    title: str
    hypothetical: bool = False
    package_tier: str = ""
    scale_up_tier: str
    default_collective: str
    default_expert: str
    default_engine: str
    sources: dict[str, Source]
    chip: ChipSpec
    tiers: list[TierSpec] = Field(min_length=1)
    endpoints: dict[Literal["npu", "cpu"], EndpointSpec]
    links: dict[str, SideLinkSpec]
    collectives: dict[str, CollectiveLibrarySpec] = Field(min_length=1)
    expert_parallel: dict[str, dict[str, ExpertModeSpec]] = Field(min_length=1)
    engines: dict[str, EngineSpec] = Field(min_length=1)
    power: PowerSpec
    parts: PartsSpec
    alternatives: dict[str, Alternative] = {}

    @model_validator(mode="after")
    def _references(self):
        mistakes = []
        tiers = [tier.name for tier in self.tiers]
        for key, name, among in (
            ("scale_up_tier", self.scale_up_tier, tiers),
            ("package_tier", self.package_tier, ["", *tiers]),
            ("default_collective", self.default_collective, list(self.collectives)),
            ("default_expert", self.default_expert, list(self.expert_parallel)),
            ("default_engine", self.default_engine, list(self.engines)),
        ):
            if name not in among:
                mistakes.append(f"{key} = {name!r}: not there; use one of {among}")
        if len(set(tiers)) != len(tiers):
            mistakes.append(f"tiers: names repeat in {tiers}; give each tier its own")
        for path, figure in figures_of(self).items():
            if figure.source not in self.sources:
                mistakes.append(f"{path}.source = {figure.source!r}: not under [sources]")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def figures_of(file: SystemFile) -> dict[str, Figure]:
    """Every figure of the file by leaf path, alternatives not included."""
    found: dict[str, Figure] = {}

    def visit(path: str, node) -> None:
        if isinstance(node, Figure):
            found[path] = node
        elif isinstance(node, Strict):
            for name, value in node:
                visit(f"{path}.{name}" if path else name, value)
        elif isinstance(node, dict):
            for name, value in node.items():
                visit(f"{path}.{name}", value)
        elif isinstance(node, list):
            for tier in (item for item in node if isinstance(item, TierSpec)):
                visit(f"{path}.{tier.name}", tier)

    for section in (
        "chip",
        "tiers",
        "endpoints",
        "links",
        "collectives",
        "expert_parallel",
        "engines",
        "power",
        "parts",
    ):
        visit(section, getattr(file, section))
    return found
