"""The prompter: its bundle, its rewrite template, and its decoder in onnxruntime."""
