"""Export: prompter -> ONNX bundle, target -> GGUF, each compared with torch before it is written.

Installed as `alignpro_lite.export`; needs the extra `[export]`.
"""

import os

# Before anything here imports onnxruntime or huggingface_hub.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # peft asks the hub about the name of an adapter's base
