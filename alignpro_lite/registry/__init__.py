"""Models by name: the rows of models.toml, the cache, and how a model gets there.

`models_toml` reads the rows, `sources` what a source means, `cache` is the
folder of models, `pull` fills it through `package_index` and `download`, and
`storage` is what they all write with. Only `pull` uses a network.
"""

from alignpro_lite.registry.cache import Cache, installed_path, resolve_model
from alignpro_lite.registry.models_toml import (
    BundleRecipe,
    Entry,
    Kind,
    Registry,
    RewardRecipe,
    load,
)

__all__ = [
    "BundleRecipe",
    "Cache",
    "Entry",
    "Kind",
    "Registry",
    "RewardRecipe",
    "installed_path",
    "load",
    "resolve_model",
]
