"""What PyInstaller cannot see: modules that are imported by name, data, and versions."""

from importlib.metadata import PackageNotFoundError

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

_LEFT_OUT = tuple(f"alignpro_lite.{room}" for room in ("__pyinstaller", "eval", "export", "train"))
"""An app needs none of these; the command line imports what it needs of them by itself."""

hiddenimports = collect_submodules("alignpro_lite", lambda name: not name.startswith(_LEFT_OUT))
datas = collect_data_files("alignpro_lite") + collect_data_files("py3langid")
for distribution in ("alignpro-lite", "llama-cpp-python", "onnxruntime", "onnxruntime-gpu"):
    try:
        datas += copy_metadata(distribution)
    except PackageNotFoundError:
        continue  # one of the two packages of onnxruntime is enough

# Training, export and evaluation, which an app does not do: a gigabyte where they are installed.
excludedimports = [
    *("accelerate", "datasets", "gguf", "matplotlib", "nltk", "onnx", "onnx_ir"),
    *("onnxruntime_genai", "optimum", "peft", "pyarrow", "safetensors", "tensorboardX", "torch"),
    *("tqdm", "transformers", "trl"),
]
# Whether a model was tried is remembered by the files of its engine, so these must be files.
module_collection_mode = {"llama_cpp": "py", "onnxruntime": "py"}
