"""Models in torch as they are published: folders, GGUF files and adapters. Needs `[export]`."""

import os

# Before anything that uses torch imports onnxruntime or huggingface_hub.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # peft asks the hub about the name of an adapter's base
