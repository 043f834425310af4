"""Writing a trained adapter in peft's form."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

ADAPTER_FOLDER = "adapter"
"""The folder of a run that its adapter is written into."""


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Write the trained weights at half precision.

    Args:
        model: The base with its adapter.
        base: Name of the base, written instead of its path on this machine.
        folder: Gets adapter_config.json and adapter_model.safetensors.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    trained = {
        name: value.half() for name, value in model.named_parameters() if value.requires_grad
    }
    model.save_pretrained(
        str(folder),
        state_dict=trained,
        safe_serialization=True,
        save_embedding_layers=False,  # "auto" asks the hub about the base
    )
    (folder / "README.md").unlink(missing_ok=True)  # peft writes a template without content
