"""A `config.json` whose keys are ticked off as they are read, so that none is missed."""

import re
from collections.abc import Iterable
from typing import Any

from ..errors import shown
from ..figures import number

SPELLINGS: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "n_embed", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    "kv_heads": (
        *("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads"),
        *("multi_query_group_num", "kv_n_heads", "num_query_groups"),
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_head"),
    "intermediate": (
        *("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
        "inner_dim",
    ),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "routed": (
        *("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"),
        *("num_routed_experts", "num_moe_experts", "n_experts"),
    ),
    "topk": (
        *("num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk"),
        *("num_experts_per_token", "moe_top_k", "moe_router_topk"),
        "top_k_experts",
    ),
    "shared": (
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
    ),
    "expert_width": (
        *("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    ),
    "shared_width": (
        *("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
        "shared_intermediate_size",
    ),
    "dense_first": ("first_k_dense_replace", "num_dense_layers", "n_dense_layers"),
    "drafts": (
        *("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"),
        "num_mtp_modules",
    ),
    "query_rank": ("q_lora_rank", "attention_q_lora_dim"),
    "latent_dim": ("kv_lora_rank", "attention_kv_lora_dim"),
    "rope_dim": ("qk_rope_head_dim", "attention_qk_rope_dim"),
    "nope_dim": ("qk_nope_head_dim", "attention_qk_dim"),
    "value_dim": ("v_head_dim", "attention_v_dim"),
    "state_heads": ("mamba_n_heads", "mamba_num_heads"),
    "state_head_dim": ("mamba_d_head", "mamba_head_dim"),
    "state_size": ("mamba_d_state", "ssm_state_size", "state_size"),
    "state_groups": ("mamba_n_groups", "n_groups", "mamba_ngroups"),
    "state_kernel": ("mamba_d_conv", "conv_kernel"),
    "state_chunk": ("mamba_chunk_size", "chunk_size"),
    "state_expand": ("mamba_expand", "expand"),
    "state_rank": ("mamba_dt_rank", "time_step_rank"),
    "groups": ("n_group", "num_expert_group", "num_expert_groups"),
    "window": ("sliding_window", "window_size", "sliding_window_size"),
    "positions": ("n_positions", "max_position_embeddings", "max_seq_len", "n_ctx"),
}
"""What a number means, and how families spell it."""

SPEAKS = re.compile(
    "layer|window|attn|attention|expert|moe|mamba|ssm|linear|index|compress|hybrid|"
    "kv_share|share_kv|cla_share|use_cla|zero_|rank|latent|state_size"
)
"""Keys with such a word in them may change what a model is: none is passed over."""

SILENT = re.compile(
    r"dropout|drop$|pdrop|_eps|epsilon|init|_loss|aux|implementation|norm_topk|"
    r"router_jitter|jitter|softcap|logit_scale|scaling_factor|score_func|scoring_func|"
    r"use_cache|^output_|layerdrop|topk_method|gate_type|query_pre_attn|fused|rope|"
    r"capacity|z_loss|router_bias_update|hidden_act|_activation|attention_multiplier|"
    r"multiplier|deterministic|flash|cache_implementation|expert_parallel|_dtype$|"
    r"moe_gate$|use_aux_free|clip_qkv|temperature|attn_scale|bidirectional|"
    r"shared_expert_overlap|float32|upcast|prune_heads|_scale$|initializer|"
    r"moe_router_|router_logits|num_logits|position_bucket|distance|checkpoint|"
    r"scale_attn|fp32|alpha_factor|beta_factor|norm_min|use_mamba_kernels|post_layernorm|"
    r"reorder|query_key_layer_scaling|inverse_layer|interleaved$|use_mambapy|hidden_states_scale|attn_uses|"
    r"input_jitter|expert_tensor|_rope|max_window_layers|vision|image|video|audio|"
    r"renormalize|^mtp_|moe_mode|layernorm_|qk_norm_type|seq_aux|use_grouped|rotary"
)
"""And those that change neither shapes nor work, whatever their value."""

Json = Any
"""A value of a `config.json`: a number, a text, a list, a table, or nothing."""

Table = dict[str, Json]
"""A table of a `config.json`, or of the model file that is made of it."""

OFF: tuple[Json, ...] = (None, False, 0, "", [], {})


class Config:
    """Reads keys and remembers which; mistakes are kept until all are found."""

    def __init__(self, raw: Table, where: str, defaults: Table):
        self.raw, self.where = raw, where
        self.defaults = defaults
        """What the family's own class has where the file says nothing."""
        self.read: set[str] = set()
        self.mistakes: list[str] = []

    def refuse(self, key: str, problem: str) -> None:
        """Remember a mistake."""
        self.mistakes.append(f"{self.where}: {key}{shown(self.raw.get(key))}: {problem}")

    def spelled(self, meaning: str) -> str:
        """The key that the file has a number by; the first one where it has none."""
        keys = SPELLINGS.get(meaning, (meaning,))
        return next((key for key in keys if self.raw.get(key) is not None), keys[0])

    def value(self, *keys: str) -> Json:
        """The first key that is there and not null, or else the family's default."""
        self.read.update(keys)
        for source in (self.raw, self.defaults):
            for key in keys:
                if source.get(key) is not None:
                    return source[key]
        return None

    def has(self, *keys: str) -> bool:
        """Whether the file or the family has such a value; it counts as read."""
        return self.value(*keys) is not None

    def number(self, meaning: str, default: float | None = None) -> float:
        """A number by what it means, or by its key. Lists of one value are that value.

        Args:
            default: where it is missing; None if it must not be.
        """
        keys = SPELLINGS.get(meaning, (meaning,))
        self.read.update(keys)
        given = {key: self.raw[key] for key in keys if self.raw.get(key) is not None}
        if not given:
            given = {k: v for k in keys if (v := self.defaults.get(k)) is not None}
        numbers = {}
        for key, value in given.items():
            one = value[0] if isinstance(value, list) and value else value
            if isinstance(value, list) and any(other != one for other in value):
                self.refuse(key, f"{value}: differs between layers; write a TOML model")
                return 1.0
            try:
                numbers[key] = number(one)
            except ValueError as error:
                self.refuse(key, str(error))
                return 1.0
            if numbers[key] < 0.0 or numbers[key] % 1.0:
                self.refuse(key, "must be a whole number of at least 0")
                return 1.0
        if len(set(numbers.values())) > 1:
            self.refuse(next(iter(numbers)), f"other than {numbers}; use one of them")
        if numbers:
            return next(iter(numbers.values()))
        if default is None:
            self.mistakes.append(
                f"{self.where}: {keys[0]}: required key is missing; add it"
            )
            return 1.0
        return default

    def count(self, meaning: str, default: float | None = None) -> float:
        """The same, at least 1."""
        value = self.number(meaning, default)
        if value < 1.0:
            self.refuse(self.spelled(meaning), "must be greater than 0")
            return 1.0
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A positive number by its key, whole or not.

        Args:
            default: where it is missing; None if it must not be.
        """
        value = self.value(key)
        value = default if value is None else value
        if value is None:
            self.mistakes.append(f"{self.where}: {key}: required key is missing; add it")
            return 1.0
        try:
            read = number(value)
        except ValueError as error:
            self.refuse(key, str(error))
            return 1.0
        if read <= 0.0:
            self.refuse(key, "must be greater than 0")
            return 1.0
        return read

    def flag(self, key: str | bool, default: bool = False) -> bool:
        """A switch by its key, or as a family has it."""
        if isinstance(key, bool):
            return key
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
            return default
        return value

    def listed(self, key: str, length: int | None = None) -> list[Json] | None:
        """A list, of one entry a layer where a length is asked for."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.refuse(key, "must be a list")
            return None
        if length is not None and len(value) != length:
            self.refuse(key, f"has {len(value)} entries for {length} layers")
            return None
        return value

    def chosen(self, key: str, count: int) -> list[bool]:
        """Which of so many layers a list of their places names."""
        places = self.listed(key) or []
        if any(isinstance(i, bool) or i not in range(count) for i in places):
            self.refuse(key, f"must be a list of places from 0 to {count - 1}")
        return [i in places for i in range(count)]

    def table(self, key: str) -> "Config":
        """A table within the file, read by the same rules, with the file's mistakes."""
        value = self.value(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, "must be a table")
        inner = value if isinstance(value, dict) else {}
        return self.of(key, inner)

    def of(self, key: str, inner: Table) -> "Config":
        """One table of a list, read by the same rules."""
        other = Config(inner, f"{self.where}: {key}", {})
        other.mistakes = self.mistakes
        return other

    def changed(self, changes: Table) -> "Config":
        """The file as some layers have it; what is read or refused counts for all."""
        other = Config(self.raw | changes, self.where, self.defaults)
        other.read, other.mistakes = self.read, self.mistakes
        return other

    def unheard(self) -> "Config":
        """The file, whose mistakes in what is read from now on don't count."""
        other = self.changed({})
        other.mistakes = []
        return other

    def leftover(self, ignored: Iterable[str] = ()) -> None:
        """Refuse what speaks of the model's shape and was not read."""
        for key, value in self.raw.items():
            if key in self.read or key in ignored or value in OFF:
                continue
            if SPEAKS.search(key.lower()) and not SILENT.search(key.lower()):
                self.refuse(
                    key,
                    "not understood, and it may change the model; if it doesn't, take it"
                    " out, else write the model as TOML (cmxjax show NAME prints one)",
                )
