"""`alignpro-lite export`: prompter and reward to ONNX bundles, target to GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.extras import require_extra
from alignpro_lite.cli.options import cache_option
from alignpro_lite.errors import InputError

if TYPE_CHECKING:
    from alignpro_lite.registry import BundleRecipe, Entry, ModelStore, RewardRecipe

mismatch_option = click.option(
    "--allow-mismatch",
    is_flag=True,
    help="Keep a result that disagrees with torch; the result records it.",
)


@click.group()
def export() -> None:
    """Convert models for the runtime; each result is compared with torch first.

    Needs the extra: pip install "alignpro-lite[cpu,export]".
    """


@export.command("bundle")
@click.argument("name", default="default")
@cache_option
def build_entry(name: str, cache: Path | None) -> None:
    """Build the bundle NAME of models.toml in the cache.

    NAME is a prompter bundle or a preset that names one, or reward/NAME for a
    reward; the bundle of the default preset if it is left out. Pull the model
    that it is made from first.
    """
    require_extra("export")
    from alignpro_lite import registry

    store = registry.ModelStore.open(cache)
    kind: registry.ModelKind = "reward" if name.startswith("reward/") else "bundle"
    (entry,) = store.registry.named(f"{kind}/{name.removeprefix(f'{kind}/')}")
    match entry.recipe:
        case registry.BundleRecipe() as recipe:
            _build_bundle(entry, recipe, store)
        case registry.RewardRecipe() as recipe:
            _build_reward(entry, recipe, store)
        case _:
            raise InputError(
                f"{entry.key} is downloaded, not built.", f"Run `{entry.install_command}`."
            )


def _build_bundle(entry: Entry, recipe: BundleRecipe, store: ModelStore) -> None:
    from alignpro_lite.export.bundle import BundleRequest, export_bundle

    request = BundleRequest(
        source=store.cache.installed_path(store.registry.downloadable(entry)),
        base_model=recipe.prompter,
        adapter=recipe.adapter,
        mode=recipe.mode,
        precision=recipe.precision,
        device="cpu",
        allow_mismatch=False,
    )
    with store.cache.locked(entry):
        made = export_bundle(request, store.cache.path(entry), note=output.note)
    _print_made(made.path, made.sidecar.parity.summary())


def _build_reward(entry: Entry, recipe: RewardRecipe, store: ModelStore) -> None:
    from alignpro_lite.export.reward import RewardRequest, export_reward

    base = store.cache.installed_path(store.registry.downloadable(entry))
    request = RewardRequest(
        recipe.adapter, base, recipe.precision, False, part_weights=recipe.part_weights
    )
    with store.cache.locked(entry):
        made = export_reward(request, store.cache.path(entry), note=output.note)
    _print_made(store.cache.path(entry), made.parity.summary())


@export.command("prompter")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--adapter",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A peft LoRA folder to merge.",
)
@click.option(
    "--mode",
    type=click.Choice(["augment", "rewrite"]),
    help="augment adds a hint to the prompt; rewrite replaces it (for prompters from 1B).  "
    "[default: what the adapter was trained for, else augment]",
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
def make_prompter(
    source: str,
    out: Path,
    adapter: Path | None,
    mode: Literal["augment", "rewrite"] | None,
    precision: Literal["int4", "int8", "fp16", "fp32"],
    device: Literal["cpu", "cuda"],
    allow_mismatch: bool,
    cache: Path | None,
) -> None:
    """Make a prompter bundle from SOURCE in the folder OUT.

    SOURCE is a Hugging Face folder, a GGUF file, or the name of a pulled prompter
    from models.toml. A bundle that is already at OUT is replaced.
    """
    require_extra("export")
    from alignpro_lite.export.bundle import BundleRequest, export_bundle
    from alignpro_lite.registry import ModelStore

    request = BundleRequest(
        source=ModelStore.open(cache).path("prompter", source),
        base_model=Path(source).name,
        adapter=adapter,
        mode=mode,
        precision=precision,
        device=device,
        allow_mismatch=allow_mismatch,
    )
    made = export_bundle(request, out, note=output.note)
    _print_made(made.path, made.sidecar.parity.summary())


@export.command("lora")
@click.argument("adapter", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("target")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--mode",
    type=click.Choice(["augment", "rewrite"]),
    help="How its output is used.  [default: what the adapter was trained for, else augment]",
)
@cache_option
def make_lora(
    adapter: Path,
    target: str,
    out: Path,
    mode: Literal["augment", "rewrite"] | None,
    cache: Path | None,
) -> None:
    """Make the GGUF file OUT of ADAPTER, a peft folder that was trained on TARGET.

    With `--prompter self+OUT`, TARGET then rewrites prompts as it was trained to, and
    needs no second model. TARGET is a GGUF file or a name of models.toml.
    """
    require_extra("export")
    from alignpro_lite.export.lora import export_lora
    from alignpro_lite.matching import known_target
    from alignpro_lite.registry import ModelStore

    store = ModelStore.open(cache)
    path = store.path("target", target)
    made = export_lora(adapter, path, known_target(store, target, path), mode, out)
    click.echo(str(made.path))


@export.command("reward")
@click.argument("trained", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--base",
    help="Its base model: a Hugging Face folder, or the name of a pulled reward from models.toml.  "
    "[default: the base that TRAINED names]",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp32"]),
    default="int8",
    show_default=True,
    help="Of the weights.",
)
@click.option(
    "--weight",
    "weights",
    type=(str, float),
    multiple=True,
    metavar="PART NUMBER",
    help="Weight of a part in the sum, as in training; may be repeated.  [default: 1 each]",
)
@mismatch_option
@cache_option
def make_reward(
    trained: Path,
    out: Path,
    base: str | None,
    precision: Literal["int8", "fp32"],
    weights: tuple[tuple[str, float], ...],
    allow_mismatch: bool,
    cache: Path | None,
) -> None:
    """Make a reward bundle from TRAINED in the folder OUT.

    TRAINED is a folder that `train reward` wrote. A reward bundle that is already
    at OUT is replaced.
    """
    require_extra("export")
    from alignpro_lite.export.reward import RewardRequest, export_reward
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.reward.torch_reward import read_card

    name = base or read_card(trained).base
    path = ModelStore.open(cache).path("reward", name)
    request = RewardRequest(trained, path, precision, allow_mismatch, dict(weights))
    made = export_reward(request, out, note=output.note)
    _print_made(out, made.parity.summary())


@export.command("target")
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("gguf", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--quantisation",
    default="Q4_K_M",
    show_default=True,
    help="Any type of llama.cpp: F16, Q8_0, Q4_K_M, ...",
)
@mismatch_option
def make_target(source: Path, gguf: Path, quantisation: str, allow_mismatch: bool) -> None:
    """Convert the Hugging Face folder SOURCE to the file GGUF, quantised."""
    require_extra("export")
    from alignpro_lite.export.target import export_target

    parity = export_target(source, gguf, quantisation, allow_mismatch)
    _print_made(gguf, parity.summary())


def _print_made(path: Path, parity: str) -> None:
    output.note(f"Compared with torch: {parity}.")
    click.echo(str(path))
