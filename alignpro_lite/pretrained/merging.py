"""A peft adapter on its base: attached, as peft runs it, and merged into the weights."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignpro_lite.errors import ExportError, reason_of
from alignpro_lite.pretrained.adapter_config import read_adapter_config

_PREFIX = "base_model.model."
_WRAPPER = re.compile(
    r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)"
)
"""What torch's wrappers of a model put before the names of its tensors."""
_NAMED = re.compile(
    r"\.((?:lora|ia3|hada|lokr|oft|boft|trainable_tokens)_\w+)\.(?!weight$|bias$)[^.]+"
    r"|\.modules_to_save\.[^.]+(?=\.)"
)
"""What peft calls a tensor in memory: with the adapter's name, which it leaves out of files."""

_SAMPLE = 128
_LOST = 1e-3
"""Share of the logits' norm that rounding may take when an adapter is merged."""


def attach_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Attach an adapter to its base as peft runs it.

    Args:
        model: The base; it is changed in place.
        folder: What peft's `save_pretrained` wrote.

    Raises:
        ExportError: The adapter is missing, damaged, of a kind that cannot be merged, or made for
            another model.
    """
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ExportError(
            f"Expected a peft adapter with {weights.name} in {folder}, found none.",
            "Give the folder that peft's save_pretrained wrote.",
        )
    config = read_adapter_config(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied embeddings, which `merge_attached` unties
            adapted = cast(PeftModel, get_peft_model(cast(Any, model), config))
            expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            tensors = {_name_in_file(name): value for name, value in load_file(weights).items()}
            if lacking := sorted(expected - tensors.keys()):
                raise _does_not_fit(folder, f"it lacks {len(lacking)} tensors, first {lacking[0]}")
            unused = cast(Any, set_peft_model_state_dict(adapted, tensors)).unexpected_keys
    except ExportError:
        raise
    except Exception as error:  # peft's and torch's share no base
        raise _does_not_fit(folder, reason_of(error)) from error
    if unused:
        found = f"the model has no counterpart of {len(unused)} tensors, first {min(unused)}"
        raise _does_not_fit(folder, found)
    return adapted.eval()


def merge_attached(adapted: PeftModel) -> PreTrainedModel:
    """Merge an attached adapter into the weights.

    Embeddings that are tied to the head are untied: an update of either would change both. They
    are tied again if the adapter left them equal.

    Raises:
        ExportError: The adapter cannot be merged, or the merged model computes something else.
    """
    tied = cast(Any, adapted.get_base_model()).config.tie_word_embeddings
    before = _sample_logits(adapted)
    _untie(adapted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of embeddings that are no longer tied
            merged = cast(Any, adapted).merge_and_unload(safe_merge=True).eval()
    except Exception as error:  # peft's share no base
        raise ExportError(f"The adapter cannot be merged ({reason_of(error)}).", _ELSEWHERE) from (
            error
        )
    inputs, outputs = merged.get_input_embeddings(), merged.get_output_embeddings()
    if tied and outputs is not None and torch.equal(inputs.weight, outputs.weight):
        merged.config.tie_word_embeddings = True
        merged.tie_weights()
    lost = (_sample_logits(merged) - before).norm() / before.norm()
    if not lost <= _LOST:
        raise ExportError(
            f"Merging the adapter changes what it does: the logits differ by {lost:.2%}, expected "
            f"at most {_LOST:.1%}.",
            _ELSEWHERE,
        )
    return cast(PreTrainedModel, merged)


_ELSEWHERE = "Merge it with the tool that trained it, and export the merged model."


def _does_not_fit(folder: Path, found: str) -> ExportError:
    return ExportError(
        f"The adapter in {folder} does not fit the model: {found}.",
        "Give the adapter that was trained on this base model, as peft's save_pretrained wrote it.",
    )


def _name_in_file(name: str) -> str:
    """What peft calls a tensor in its files, of a name that another tool gave it."""
    name = _NAMED.sub(lambda found: f".{found[1]}" if found[1] else "", _WRAPPER.sub("", name))
    name = name.removeprefix(".")
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    return _PREFIX + name


def _sample_logits(model: PeftModel | PreTrainedModel) -> Tensor:
    """Logits of tokens from the whole vocabulary."""
    config = cast(Any, model).config
    # BLOOM and MPT tell positions by distance, and name no largest one.
    positions = getattr(config, "max_position_embeddings", _SAMPLE)
    count = min(_SAMPLE, config.vocab_size, positions)
    ids = torch.arange(count) * config.vocab_size // count
    with torch.inference_mode():
        return cast(Tensor, cast(Any, model)(input_ids=ids[None]).logits)


@torch.no_grad()
def _untie(model: nn.Module) -> None:
    """Give every module parameters of its own."""
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen:
                setattr(module, name, nn.Parameter(parameter.clone(), requires_grad=False))
            seen.add(parameter)
