"""llama.cpp itself, which llama_cpp loads from the folder `lib` beside it."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("llama_cpp")
excludedimports = ["PIL", "fastapi", "huggingface_hub", "requests", "torch", "transformers"]
