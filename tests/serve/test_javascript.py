"""The official JavaScript client of OpenAI asks the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from alignpro_lite import Request, Sampling
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from tests.support.served import served

PACKAGE = "openai@6.49.0"
KEY = "sk-0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    """A folder with the client in it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    command = ["npm", "install", PACKAGE, "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot be reached")
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-200:]}")
    return tmp_path


@pytest.mark.real
def test_the_javascript_client(folder, tiny_model):
    usual = Request(max_tokens=12, sampling=Sampling(temperature=0))
    app = model_app(tiny_model, ServedModel("tiny", (), Usual(usual)), Limits(), Rules(key=KEY))
    script = shutil.copy(Path(__file__).with_name("client.mjs"), folder)
    with served(app) as server:
        done = subprocess.run(
            ["node", script, f"{server.url}/v1", KEY], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["whole"] == told["streamed"]
    assert told["sent"]
    assert told["usage"]["completion_tokens"] > 0
    assert told["models"] == ["tiny"]
    assert told["refusal"]["kind"] == "BadRequestError"
    assert "temperature must be a number" in told["refusal"]["message"]
    assert told["text"]
