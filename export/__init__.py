"""Export: prompter -> ONNX bundle, target -> GGUF, each compared with torch before it is written.

Installed as `alignpro_lite.export`; needs the extra `[export]`.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything here imports onnxruntime
