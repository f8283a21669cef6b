"""Count the parameters of the decoders that the transformers library builds.

Every causal language model is built without memory, in its default configuration and in
three shrunken ones, and its parameters are counted. The rows go to `table.json.gz`.
"""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from variants import FAMILIES, FLIPPED, KEEP, LEFT_OUT, LISTS, SIZES

TABLE = Path(__file__).with_name("table.json.gz")

# Keys of every configuration that say nothing of the architecture.
_COMMON = set(PreTrainedConfig().to_dict()) - {"model_type", "tie_word_embeddings"}
_RUNTIME = re.compile(
    r"token_id$|dropout|pdrop|layerdrop|initializer|init_std|_coef$|use_cache|router_logits"
)

_DRAFT = re.compile(r"mtp|nextn|eagle")
_ROUTED = re.compile(
    r"(^|\.)experts\.(?!router)"  # most classes
    r"|\.mlp\.(input|output)_linear\."  # jetmoe
    r"|\.mlp\.(down|up)_embed\."  # doge
)


def shrunken(model_type: str, default: dict[str, Any], variant: int) -> dict[str, Any]:
    """The keys that a variant gives to the configuration class."""
    keys: dict[str, Any] = {}
    for key, value in default.items():
        if key in SIZES:
            keys[key] = SIZES[key][variant - 1]
        elif variant == 2 and "bias" in key and isinstance(value, bool):
            keys[key] = not value
        if key in FLIPPED.get(variant, ()):
            keys[key] = not value
    layers = SIZES["num_hidden_layers"][2]
    for key in LISTS if variant == 3 else ():
        kinds = sorted(set(default.get(key) or ()), reverse=True)
        counted = key == "mlp_layer_types" and "first_k_dense_replace" in default
        if len(kinds) > 1 and not counted:
            keys[key] = [kinds[i % len(kinds)] for i in range(layers)]
    if "kv_lora_rank" in default:  # every head has keys and values of its own
        keys.pop("head_dim", None)
        keys["num_key_value_heads"] = keys["num_attention_heads"]
    keys.update(FAMILIES.get(model_type, ({}, {}, {}))[variant - 1])
    return {key: value for key, value in keys.items() if value is not KEEP}


def written(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    """A configuration as `config.json` holds it, without keys of training and serving."""
    keys = json.loads(config.to_json_string(use_diff=False))
    return {"architectures": [architecture]} | _cut(keys)


def _cut(keys: dict[str, Any]) -> dict[str, Any]:
    """A configuration, or a table in one, without keys of training and serving."""
    return {
        key: _cut(value) if isinstance(value, dict) else value
        for key, value in keys.items()
        if key not in _COMMON and not _RUNTIME.search(key)
    }


def counts(model: nn.Module) -> dict[str, int]:
    """Parameters of a model and of its parts; a shared tensor counts once."""
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().parameters()
    named = list(model.named_parameters())
    return {
        "total": sum(p.numel() for _, p in named),
        "input_table": table.numel(),
        "head": sum(p.numel() for p in head if p is not table),
        "draft": sum(p.numel() for name, p in named if _DRAFT.search(name)),
        "routed_experts": sum(p.numel() for name, p in named if _routed(name, p)),
    }


def _routed(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix of routed experts and not of a draft module."""
    if parameter.ndim < 2 or _DRAFT.search(name):
        return False
    return _ROUTED.search(name) is not None


def row(model_type: str, variant: str, keys: dict[str, Any]) -> dict[str, Any]:
    """One row of the table: the counts, or why the model could not be built."""
    found: dict[str, Any] = {"model_type": model_type, "variant": variant, "set": keys}
    try:
        padding = {"pad_token_id": 0} if keys else {}
        config = CONFIG_MAPPING[model_type](**json.loads(json.dumps(keys)), **padding)
        name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
        found["config"] = written(config, name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        found |= counts(model)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        found["skipped"] = reason[:200]
    return found | {"transformers": transformers.__version__}


def rows() -> list[dict[str, Any]]:
    """The rows of all kept families, in the order of their names."""
    table = []
    for model_type in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(LEFT_OUT)):
        default = CONFIG_MAPPING[model_type]().to_dict()
        table.append(row(model_type, "default", {}))
        for variant in (1, 2, 3):
            keys = shrunken(model_type, default, variant)
            table.append(row(model_type, str(variant), keys))
    return table


def main() -> None:
    """Write the table and say what was skipped."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    table = rows()
    text = "[\n" + ",\n".join(json.dumps(r, allow_nan=False) for r in table) + "\n]\n"
    TABLE.write_bytes(gzip.compress(text.encode(), mtime=0))
    skipped = [r for r in table if "skipped" in r]
    for r in skipped:
        print(f"{r['model_type']} {r['variant']}: {r['skipped']}")
    families = len({r["model_type"] for r in table})
    print(f"{families} families, {len(table)} rows, {len(skipped)} of them skipped")


if __name__ == "__main__":
    main()
