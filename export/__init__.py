"""Export: prompter -> ONNX bundle, target -> GGUF, each compared with torch before it is written.

Installed as `alignpro_lite.export`; needs the extra `[export]`.
"""

import alignpro_lite.pretrained  # noqa: F401 - first: it keeps the hub and telemetry out
