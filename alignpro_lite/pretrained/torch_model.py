"""A model in torch, from a Hugging Face folder or a GGUF file, with an optional LoRA adapter.

Only data is read, never code: `trust_remote_code` stays off, and weights come from safetensors or
GGUF, never from a pickle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from alignpro_lite.decoding.llamacpp import open_vocabulary
from alignpro_lite.decoding.tokenizer import panics_as_exceptions
from alignpro_lite.errors import AlignProError, ExportError, reason_of
from alignpro_lite.gguf.header import is_count
from alignpro_lite.gguf.reading import MAGIC
from alignpro_lite.pretrained import gguf_tokenizer
from alignpro_lite.pretrained.folder import default_template, lone_file, readable_folder
from alignpro_lite.pretrained.merging import attach_adapter, merge_attached


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that frame a text.

    Attributes:
        bos: Beginning of sequence, or None.
        eos: The model's own end of an answer.
        stop: Every id that ends an answer, in ascending order.
        add_bos: Whether the model expects `bos` before every text.
    """

    bos: int | None
    eos: int
    stop: tuple[int, ...]
    add_bos: bool


@dataclass(frozen=True)
class TorchModel:
    """A model in torch (fp32, on the CPU) with its tokenizer.

    Attributes:
        name: The path it was loaded from, for messages.
        model: The causal language model, adapter merged, in evaluation mode.
        tokenizer: The fast tokenizer, which an export writes as tokenizer.json.
        special: Special ids.
        chat_template: The Jinja chat template, or None.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    special: SpecialTokens
    chat_template: str | None

    def save_folder(self, folder: Path) -> None:
        """Write the model as a plain Hugging Face folder for the converters to read."""
        self.model.generation_config = GenerationConfig(
            bos_token_id=self.special.bos, eos_token_id=list(self.special.stop)
        )
        try:
            self.model.save_pretrained(folder)
        except SafetensorError as error:
            raise ExportError(
                f"The model cannot be written to {folder} ({reason_of(error)}).",
                "Free some disk space.",
            ) from error
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            bos_token=_token(self.tokenizer, self.special.bos),
            eos_token=_token(self.tokenizer, self.special.eos),
            chat_template=self.chat_template,
        )
        wrapped.save_pretrained(folder)


def load_torch_model(path: Path) -> TorchModel:
    """Load a Hugging Face folder or a GGUF file.

    Raises:
        ExportError: The path is missing, damaged, names code to run, or holds no usable weights.
    """
    if path.is_dir():
        with readable_folder(path) as view:
            return _load_folder(path, view)
    if path.is_file() and _is_gguf(path):
        return _load_gguf(path)
    found = "a file of another kind" if path.exists() else "nothing"
    raise ExportError(
        f"Expected a Hugging Face folder or a GGUF file at {path}, found {found}.",
        "Give the folder that holds config.json, or a .gguf file.",
    )


def merge_adapter(base: TorchModel, adapter: Path) -> TorchModel:
    """Merge a peft adapter into the weights.

    Args:
        base: The base model; its weights are changed in place.
        adapter: The folder that peft's `save_pretrained` wrote.

    Returns:
        The merged model.

    Raises:
        ExportError: See `attach_adapter` and `merge_attached`.
    """
    return replace(base, model=merge_attached(attach_adapter(base.model, adapter)))


def _load_folder(path: Path, view: Path) -> TorchModel:
    try:
        model, loading = _read_weights(view, gguf_file=None)
        with panics_as_exceptions():
            tokenizer = AutoTokenizer.from_pretrained(
                view,
                local_files_only=True,
                trust_remote_code=False,
                # transformers 4.57.6 warns of a fault of Mistral's at every large vocabulary.
                fix_mistral_regex=None if _is_mistral(model.config) else False,
            )
            if not isinstance(tokenizer, PreTrainedTokenizerFast):
                raise ExportError(
                    f"{path} has no tokenizer.json, only a {type(tokenizer).__name__}.",
                    "Convert it to a fast tokenizer with transformers and save it into the folder.",
                )
            special = _folder_special_tokens(model, tokenizer)
    except AlignProError:
        raise
    except Exception as error:
        raise _cannot_load(path, view, error) from error
    _require_all_weights(path, loading)
    template = default_template(tokenizer.chat_template)
    return TorchModel(str(path), model, tokenizer.backend_tokenizer, special, template)


def _is_mistral(config: PretrainedConfig) -> bool:
    """Whether a model is of the family whose tokenizers were published with a wrong rule."""
    return "tral" in config.model_type  # mistral, mixtral, pixtral, voxtral, ...


def _load_gguf(path: Path) -> TorchModel:
    with lone_file(path) as view:
        try:
            with gguf_tokenizer.recognised_by_transformers():
                model, loading = _read_weights(view, gguf_file=path.name)
            vocabulary = open_vocabulary(path)
            tokenizer = gguf_tokenizer.rebuild_tokenizer(path, vocabulary)
        except AlignProError:
            raise
        except Exception as error:
            raise _cannot_load(path, view, error) from error
    _require_all_weights(path, loading)
    if vocabulary.eos is None:
        raise ExportError(
            f"{path} names no end-of-sequence token, so nothing would ever stop the model.",
            "Export from the model's Hugging Face folder, with an eos_token_id.",
        )
    special = SpecialTokens(vocabulary.bos, vocabulary.eos, vocabulary.stop, vocabulary.add_bos)
    return TorchModel(str(path), model, tokenizer, special, vocabulary.chat_template)


def _read_weights(folder: Path, gguf_file: str | None) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read weights in fp32, with transformers' report of what was missing."""
    model, loading = cast(Any, AutoModelForCausalLM).from_pretrained(
        folder,
        gguf_file=gguf_file,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    model.name_or_path = model.config.name_or_path = ""  # the view is gone when others look for it
    return model.eval(), loading


def _folder_special_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> SpecialTokens:
    """Collect every id that the folder's files say ends an answer."""
    stop: list[Any] = []
    for named in (
        getattr(model.generation_config, "eos_token_id", None),
        model.config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        ids = named if isinstance(named, list) else [named]
        stop += [token for token in ids if token is not None]
    if not all(map(is_count, stop)):
        raise ExportError(
            f"The model's eos_token_id must be ids of tokens, found {stop!r:.80}.",
            "Correct it in config.json and generation_config.json.",
        )
    if not stop:
        raise ExportError(
            "The model names no end-of-sequence token, so nothing would ever stop it.",
            "Set eos_token_id in generation_config.json.",
        )
    bos = cast(int | None, tokenizer.bos_token_id)
    first = tokenizer("a").input_ids[:1]
    eos = min(stop) if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    return SpecialTokens(bos, eos, tuple(sorted(set(stop))), bos is not None and first == [bos])


def _require_all_weights(path: Path, loading: dict[str, Any]) -> None:
    """Transformers fills missing weights with noise and only warns; here that is an error."""
    missing = sorted(loading["missing_keys"]) + sorted(map(str, loading["mismatched_keys"]))
    if missing:
        raise ExportError(
            f"{path} lacks {len(missing)} tensors of its architecture, first {missing[0]}.",
            "Fetch or save the complete model again.",
        )


def _cannot_load(path: Path, view: Path, error: Exception) -> ExportError:
    reason = reason_of(error).replace(str(view), str(path))
    return ExportError(
        f"{path} cannot be loaded ({reason}).",
        "Check that the model is complete and of an architecture that transformers knows.",
    )


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _token(tokenizer: Tokenizer, token_id: int | None) -> str | None:
    return None if token_id is None else cast(str | None, tokenizer.id_to_token(token_id))
