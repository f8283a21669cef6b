"""Layers of models that were searched block by block (Puzzle, arXiv 2411.19146)."""

from .config import Config, Json

Names = tuple[str, str]
"""Mixer and feed-forward half of a layer; empty where it has none, and several of a sort
joined by `+`."""


def layer_of(c: Config, block: Json) -> Names:
    """A layer by an entry of `block_configs`: how many heads share keys and values, and
    how wide the network is; or neither."""
    mixer, half = "", ""
    parts = block if isinstance(block, dict) else {}
    attention, network = parts.get("attention"), parts.get("ffn")
    if not (isinstance(attention, dict) and isinstance(network, dict)):
        c.refuse("block_configs", "each layer needs tables attention and ffn")
        return "", ""
    for part, name in ((attention, "attention"), (network, "ffn")):
        known = ("no_op", "n_heads_in_group", "ffn_mult", "num_sink_tokens")
        odd = [k for k, v in part.items() if k not in known and v not in (None, False)]
        if odd:
            c.refuse("block_configs", f"{name}.{odd[0]}: not understood")
    if not attention.get("no_op"):
        shared_by = c.of("block_configs", attention).count("n_heads_in_group", 1.0)
        mixer = f"full num_key_value_heads={c.count('heads') / shared_by:g}"
    if not network.get("no_op"):
        # two thirds of the factor, rounded up to 256, as the family's own code does
        factor = c.of("block_configs", network).real("ffn_mult")
        width = int(2.0 * factor * c.number("hidden") / 3.0)
        half = f"width {256 * -(-width // 256)}"
    return mixer, half
