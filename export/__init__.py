"""Export: prompter -> ONNX bundle, target -> GGUF, each compared with torch before it is written.

Installed as `alignpro_lite.export`; needs the extra `[export]`.
"""
