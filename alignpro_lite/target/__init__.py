"""The frozen target: a GGUF in llama.cpp, an OpenAI-compatible endpoint, or a model in torch."""
