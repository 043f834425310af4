"""Whether a GGUF file holds a model that generates text, or something else."""

from __future__ import annotations

from collections.abc import Mapping

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.architecture import require_sound_architecture
from alignpro_lite.gguf.header import TEXT_MODEL_CURE, GgufFile, clipped
from alignpro_lite.gguf.vocabulary import require_whole_vocabulary

# Files that do not generate text, by `general.type` and `general.architecture`. Architectures that
# are not listed are left to llama.cpp.
_OTHER_TYPES: Mapping[str, str] = {
    "adapter": "a LoRA adapter",
    "mmproj": "a vision or audio projector",
    "imatrix": "an importance matrix for quantisation",
    "vocab": "a vocabulary",
}
_OTHER_ARCHITECTURES: Mapping[str, str] = {
    "clip": "a vision or audio projector",
    "controlvector": "a control vector",
    "wavtokenizer-dec": "a speech decoder",
    "t5": "an encoder-decoder model",
    "eagle3": "a draft model for speculative decoding",
    "dflash": "a draft model for speculative decoding",
    "gemma4-assistant": "a draft model for speculative decoding",
} | dict.fromkeys(
    (
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "t5encoder",
        "gemma-embedding",
        "llama-embed",
    ),
    "an embedding model",
)


def require_text_generation(gguf: GgufFile) -> None:
    """Refuse a GGUF that does not hold a whole model that generates text.

    Raises:
        ModelFileError: It is an embedding model, a projector, an adapter, a vocabulary, a later
            part of a split model or something else, or llama.cpp would crash on it.
    """
    if gguf.metadata.get("split.no", 0) != 0:
        raise ModelFileError(
            f"Expected the first part of a split model, found a later one in {gguf.path}.",
            "Give its first part, whose name ends in -00001-of-… .gguf, in the same folder.",
        )
    other = _other_kind(gguf)
    if other is not None:
        raise ModelFileError(
            f"Expected a text-generation model, found {other} in {gguf.path}.", TEXT_MODEL_CURE
        )
    require_sound_architecture(gguf)
    require_whole_vocabulary(gguf)


def _other_kind(gguf: GgufFile) -> str | None:
    """What the file holds if it does not generate text."""
    declared_type = gguf.metadata.get("general.type")
    if isinstance(declared_type, str) and declared_type in _OTHER_TYPES:
        return _OTHER_TYPES[declared_type]
    if gguf.architecture in _OTHER_ARCHITECTURES:
        return _OTHER_ARCHITECTURES[gguf.architecture]
    if not gguf.tensors:
        return "a vocabulary without weights"
    # Only embedding and ranking models are converted with a pooling rule.
    if gguf.metadata.get(f"{gguf.architecture}.pooling_type", 0) != 0:
        return "an embedding model"
    if gguf.metadata.get(f"{gguf.architecture}.attention.causal", True) is False:
        return "a model without causal attention"
    if not any(tensor.name == "token_embd.weight" for tensor in gguf.tensors):
        return f"no token embeddings (architecture {clipped(gguf.architecture)})"
    if "tokenizer.ggml.model" not in gguf.metadata:
        return f"no tokenizer (architecture {clipped(gguf.architecture)})"
    return None
