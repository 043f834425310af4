"""The settings of a peft adapter, from its adapter_config.json: those that are known, and no other.

peft imports modules, reads files and loads models that this file names (`megatron_core`,
`corda_config`, `tokenizer_name_or_path`, ...). What describes an update of weights is known here;
what only says where an adapter came from is left out; anything else that is switched on is refused.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from alignpro_lite.errors import ExportError, reason_of
from alignpro_lite.pretrained.folder import read_published

MERGEABLE = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "TRAINABLE_TOKENS")
"""The kinds of adapter that are tested: each is an update of weights, for all inputs alike."""

_PLACES = (
    *("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"),
    *("layers_to_transform", "layers_pattern", "target_parameters"),
    *("trainable_token_indices", "token_indices"),
)
_SIZES = (
    *("r", "init_r", "target_r", "rank_pattern", "lora_alpha", "alpha", "alpha_pattern"),
    *("use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out", "ensure_weight_tying"),
    *("use_effective_conv2d", "decompose_both", "decompose_factor"),
    *("oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann"),
    *("num_cayley_neumann_terms", "boft_block_size", "boft_block_num", "boft_n_butterfly_factor"),
)
_BEGINNINGS = ("init_lora_weights", "init_ia3_weights", "init_weights")
"""Some of them change the base (PiSSA, OLoRA), and the adapter fits the changed one."""

_TRAINING = (
    *("lora_dropout", "rank_dropout", "module_dropout", "boft_dropout", "rank_dropout_scale"),
    *("beta1", "beta2", "deltaT", "tinit", "tfinal", "total_step", "orth_reg_weight"),
)
_KNOWN = frozenset((*_PLACES, *_SIZES, *_BEGINNINGS, *_TRAINING, "peft_type", "task_type"))

_ORIGIN = frozenset(
    (
        *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode"),
        *("megatron_core", "runtime_config", "qalora_group_size"),
        # How the first step began; the weights hold what came of it.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    )
)


def read_adapter_config(folder: Path) -> PeftConfig:
    """Read the settings of an adapter, for inference.

    Args:
        folder: What peft's `save_pretrained` wrote.

    Raises:
        ExportError: The file is missing or damaged, the adapter is of a kind that cannot be merged,
            or it uses a setting that is not known.
    """
    file = folder / "adapter_config.json"
    content = read_published(file, "peft adapter")
    kind = content.get("peft_type")
    if kind not in MERGEABLE:
        raise ExportError(
            f"Expected a peft_type of {', '.join(MERGEABLE)} in {file}, found {kind}, which is no "
            "update of weights that is known to merge.",
            "Merge it with the tool that trained it, and export the merged model.",
        )
    settings = {key: value for key, value in content.items() if key in _KNOWN}
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[cast(Any, kind)]
    known = {field.name for field in fields(config_class)} & _KNOWN
    unknown = {key: value for key, value in content.items() if key not in known | _ORIGIN and value}
    if unknown:
        raise ExportError(
            f"The adapter in {folder} uses {', '.join(sorted(unknown))}, which cannot be exported.",
            "Merge it with the tool that trained it, and export the merged model.",
        )
    try:
        config = config_class(**{key: settings[key] for key in settings.keys() & known})
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{file} cannot be used ({reason_of(error)}).", "Save the adapter again, complete."
        ) from error
    config.inference_mode = True
    return config
