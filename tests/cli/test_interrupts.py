"""Ctrl-C while native code runs that does not end by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import ROOT
from tests.support.hostile_bundles import looping

PROGRAM = """
import sys
import click
from pathlib import Path
from alignpro_lite import Sampling
from alignpro_lite.cli import cli, main
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter

def ask():
    settings = DecoderSettings("cpu", gpu=0, sequences=1, threads=1)
    with OnnxPrompter(open_bundle(Path(sys.argv[2])), settings) as prompter:
        print("asking", flush=True)
        prompter.rewrite("Hello", 1, Sampling())

cli.add_command(click.Command("ask", callback=ask, params=[]))
sys.argv = ["alignpro-lite", "ask", sys.argv[1]]
cli.commands["ask"].params.append(click.Argument(["bundle"], expose_value=False))
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_an_endless_graph_without_a_core_dump(tmp_path):
    """The first one waited for the graph, the second one aborted the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(looping(tmp_path))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "asking\n"
    for _ in range(2):
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert errors.strip() == "Interrupted."


@pytest.mark.parametrize("module", ["click", "alignpro_lite.cli", "alignpro_lite.cli.run"])
def test_ctrl_c_before_the_command_has_begun_is_an_interruption_too(module):
    """In the first tenth of a second it was a traceback."""
    program = f"""
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from alignpro_lite.__main__ import start
start()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert ended.stderr.strip() == "Interrupted."
