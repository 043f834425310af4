"""Training towards ρ* in torch; needs the extra `[train]`."""

import alignpro_lite.pretrained  # noqa: F401 - first: it keeps the hub and telemetry out
