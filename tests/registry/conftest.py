"""A hub and a package index on this machine."""

from __future__ import annotations

import pytest

from alignpro_lite.registry import download as download_module
from tests.support.hub_server import DATA, serve


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(download_module, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setenv("HF_HUB_CACHE", "/no-cache-of-the-hub")
    for variable in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with serve() as served:
        served.files["/f"] = DATA
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("PIP_INDEX_URL", served.url + "/simple/")
        yield served
