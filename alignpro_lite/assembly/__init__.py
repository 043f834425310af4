"""Assembling a bundle from the parts of its model: numpy alone, no torch and no onnx."""
