"""Write the graph without weights of a bundle: `python -m tools.generate_graph NAME`.

NAME is a bundle of models.toml whose prompter is pulled. It is exported with torch, and its graph
is kept in `alignpro_lite/graphs/NAME` only if a bundle that is assembled from it equals the export
to the byte.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alignpro_lite.assembly.shipped import SHIPPED_GRAPHS
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.weightless import keep_graph
from alignpro_lite.registry import BundleRecipe, ModelStore


def main(name: str) -> None:
    """Export a bundle and keep its graph."""
    store = ModelStore.open()
    entry = store.registry.find("bundle", name)
    recipe = entry.recipe
    assert isinstance(recipe, BundleRecipe)
    gguf = store.cache.installed_path(store.registry.downloadable(entry))
    request = BundleRequest(
        source=gguf,
        base_model=recipe.prompter,
        adapter=recipe.adapter,
        mode=recipe.mode,
        precision=recipe.precision,
        device="cpu",
        allow_mismatch=False,
    )
    with tempfile.TemporaryDirectory() as work:
        made = export_bundle(request, Path(work, "bundle"), note=print)
        keep_graph(made, gguf, recipe.adapter, SHIPPED_GRAPHS / name)


if __name__ == "__main__":
    main(sys.argv[1])
