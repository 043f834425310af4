"""`alignpro-lite export`: prompter to an ONNX bundle, target to GGUF."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.options import cache_option
from alignpro_lite.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from alignpro_lite.export.parity import ParityReport

_EXTRA = ("torch", "transformers", "onnx", "peft", "optimum", "onnxruntime_genai", "gguf")

mismatch_option = click.option(
    "--allow-mismatch",
    is_flag=True,
    help="Keep a result that agrees too little with torch; it is recorded.",
)


@click.group()
def export() -> None:
    """Convert models for the runtime; each result is compared with torch first.

    Needs the extra: pip install "alignpro-lite[cpu,export]".
    """


@export.command()
@click.argument("name", default="default")
@cache_option
def bundle(name: str, cache: Path | None) -> None:
    """Build the bundle that models.toml describes under NAME, into the cache.

    Without NAME, the default bundle; its prompter has to be pulled already.
    """
    _require_extra()
    from alignpro_lite import registry
    from alignpro_lite.export.bundle import BundleRequest, export_bundle

    known, store = registry.load(), registry.Cache.open(cache)
    entry = known.find("bundle", name)
    recipe = entry.source
    if not isinstance(recipe, registry.Recipe):
        raise InputError(
            f"{entry.key} is downloaded, not built here.", f"Run `{entry.install_command}`."
        )
    request = BundleRequest(
        source=registry.installed_path(known.find("prompter", recipe.prompter), store),
        base_model=recipe.prompter,
        adapter=None,
        mode=recipe.mode,
        precision=recipe.precision,
        device="cpu",
        allow_mismatch=False,
    )
    with store.locked(entry):
        made, parity = export_bundle(request, store.path(entry), on_stage=output.note)
    _report(made.path, parity)


@export.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--adapter",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A LoRA folder of peft to merge.",
)
@click.option(
    "--mode",
    type=click.Choice(["augment", "rewrite"]),
    default="augment",
    show_default=True,
    help="augment adds a hint to the prompt; rewrite replaces it (for prompters of 1B and more).",
)
@click.option(
    "--precision",
    type=click.Choice(["int4", "int8", "fp16", "fp32"]),
    default="int4",
    show_default=True,
    help="Of the weights.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the bundle will run.",
)
@mismatch_option
@cache_option
def prompter(
    source: str,
    out: Path,
    adapter: Path | None,
    mode: Literal["augment", "rewrite"],
    precision: Literal["int4", "int8", "fp16", "fp32"],
    device: Literal["cpu", "cuda"],
    allow_mismatch: bool,
    cache: Path | None,
) -> None:
    """Make a prompter bundle of SOURCE in the folder OUT.

    SOURCE is a Hugging Face folder, a GGUF file, or the name of a pulled
    prompter of models.toml. A bundle that lies at OUT is replaced.
    """
    _require_extra()
    from alignpro_lite import registry
    from alignpro_lite.export.bundle import BundleRequest, export_bundle

    store = registry.Cache.open(cache)
    request = BundleRequest(
        source=registry.resolve_model("prompter", source, registry.load(), store),
        base_model=Path(source).name,
        adapter=adapter,
        mode=mode,
        precision=precision,
        device=device,
        allow_mismatch=allow_mismatch,
    )
    made, parity = export_bundle(request, out, on_stage=output.note)
    _report(made.path, parity)


@export.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("gguf", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--quantisation",
    default="Q4_K_M",
    show_default=True,
    help="Any type of llama.cpp: F16, Q8_0, Q4_K_M, ...",
)
@mismatch_option
def target(source: Path, gguf: Path, quantisation: str, allow_mismatch: bool) -> None:
    """Convert the Hugging Face folder SOURCE to the file GGUF and quantise it."""
    _require_extra()
    from alignpro_lite.export.target import export_target
    from alignpro_lite.registry.storage import disk_errors

    with disk_errors(gguf):
        gguf.parent.mkdir(parents=True, exist_ok=True)
        made = export_target(source, gguf, quantisation, allow_mismatch)
    _report(made.file, made.parity)


def _report(path: Path, parity: ParityReport) -> None:
    output.note(f"Compared with torch: {parity.summary()}.")
    click.echo(str(path))


def _require_extra() -> None:
    """Name the pip line when a package of the extra is missing."""
    import_module("alignpro_lite.export")  # first: it switches onnxruntime's telemetry off
    for package in _EXTRA:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"The export needs {error.name or package}, which is not installed.",
                'Run `pip install "alignpro-lite[cpu,export]"`.',
            ) from error
