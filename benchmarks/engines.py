"""Decode speed of both engines compared with a plain peer, side by side in one run.

    python benchmarks/engines.py [--target TARGET] [--prompter PROMPTER] [--base GGUF]
                                 [--rounds 7] [--tokens 128]

- Prompter: onnxruntime-genai's own C++ loop on the same graph, and with --base the loop on
  llama.cpp's C functions on the file that the prompter was made from.
- Target: the shortest possible loop on llama.cpp's C functions.

Each side runs in a process of its own, because two teams of OpenMP threads in one process slow each
other down. The sides alternate, and medians are printed. The ratio must be at least 0.70 for the
prompter and 0.95 for the target.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import click
import numpy as np

from alignpro_lite import AlignedModel, Message, Sampling
from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.loading import load_prompter
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.llama import MICRO_BATCH
from alignpro_lite.target.target import LlamaTarget, Question

PROMPT = "How do I stay safe online when I use a public network?"

Sides = tuple[Executor, Executor]
"""A process for our engine, and one for its peer."""


@dataclass(frozen=True)
class Load:
    """What both sides decode.

    Attributes:
        model: Name or path of the model.
        count: How many sequences.
        tokens: How many tokens of each.
    """

    model: str
    count: int
    tokens: int


Measure = Callable[[Load], float]
"""Decodes and returns tokens per second."""


@click.command()
@click.option("--target", default="default", help="GGUF or name of the target.")
@click.option("--prompter", default="default", help="Bundle or name of the prompter.")
@click.option("--base", help="GGUF of the prompter's base, for llama.cpp as its second peer.")
@click.option("--rounds", default=7, help="How often the sides alternate.")
@click.option("--tokens", default=128, help="Tokens of each sequence.")
def main(target: str, prompter: str, base: str | None, rounds: int, tokens: int) -> None:
    """Measure each pair and print a line for it."""
    with two_processes() as sides:
        report("target", sides, our_target, plain_target, Load(target, 1, tokens), rounds)
    with two_processes() as sides:
        for count in (1, 4, 8):
            load = Load(prompter, count, tokens)
            report("prompter", sides, our_prompter, genai_prompter, load, rounds)
    if base is not None:
        with two_processes() as sides:
            peer = functools.partial(plain_base, base)
            report("base", sides, our_prompter, peer, Load(prompter, 1, tokens), rounds)


@contextmanager
def two_processes() -> Iterator[Sides]:
    """A process for each side."""
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as our_side,
        ProcessPoolExecutor(1, mp_context=spawn) as peer_side,
    ):
        yield our_side, peer_side


def report(name: str, sides: Sides, ours: Measure, peer: Measure, load: Load, rounds: int) -> None:
    """Alternate both sides and print the medians and the median of their ratios."""
    our_side, peer_side = sides
    speeds = [
        (our_side.submit(ours, load).result(), peer_side.submit(peer, load).result())
        for _ in range(rounds + 1)
    ][1:]  # the first round warms up
    our_speed, peer_speed = (statistics.median(side) for side in zip(*speeds, strict=True))
    ratio = statistics.median(a / b for a, b in speeds)
    click.echo(
        f"{name:8} x {load.count} {our_speed:7.1f} tok/s, peer {peer_speed:7.1f} tok/s, "
        f"ratio {ratio:.3f}"
    )


@functools.cache
def loaded_target(target: str) -> LlamaTarget:
    """The target in this process, without a prompter."""
    return AlignedModel.load(target, None).target


def our_target(load: Load) -> float:
    """Our engine, greedy: tokens per second after the first."""
    greedy = Sampling(temperature=0)
    question = Question([Message("user", PROMPT)], load.tokens, greedy, count=load.count)
    (stream,) = loaded_target(load.model).answer(question)
    pieces = iter(stream)
    next(pieces)
    start, first = time.perf_counter(), stream.token_count
    for _ in pieces:
        pass
    return (stream.token_count - first) / (time.perf_counter() - start)


def plain_target(load: Load) -> float:
    """The plain loop on the same file and prompt."""
    return plain_loop(load.model).decode(load.tokens)


def plain_base(base: str, load: Load) -> float:
    """The plain loop on the file that a prompter was made from."""
    return plain_loop(base).decode(load.tokens)


@functools.cache
def plain_loop(target: str) -> PlainLlamaLoop:
    """The plain loop of this process; our engine only tokenises the prompt and is closed."""
    with AlignedModel.load(target, None) as model:
        prompt = model.target.prompt_tokens([Message("user", PROMPT)])
        return PlainLlamaLoop(model.target, prompt)


class PlainLlamaLoop:
    """The obvious loop on llama.cpp's C functions: decode, sample, repeat."""

    def __init__(self, target: LlamaTarget, prompt: list[int]) -> None:
        import llama_cpp

        self._lib: Any = llama_cpp
        self._prompt = prompt
        self._model = llama_cpp.llama_model_load_from_file(
            str(target.path).encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = target.settings.context
        params.n_batch = params.n_ubatch = MICRO_BATCH
        params.n_threads = params.n_threads_batch = target.settings.threads
        assert self._model is not None
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        self._sampler: Any = llama_cpp.llama_sampler_init_greedy()

    def decode(self, count: int) -> float:
        """Tokens per second after the first, of so many tokens."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        tokens = (lib.llama_token * len(self._prompt))(*self._prompt)
        lib.llama_decode(self._context, lib.llama_batch_get_one(tokens, len(self._prompt)))
        token = (lib.llama_token * 1)(lib.llama_sampler_sample(self._sampler, self._context, -1))
        start = time.perf_counter()
        for _ in range(count - 1):
            lib.llama_decode(self._context, lib.llama_batch_get_one(token, 1))
            token[0] = lib.llama_sampler_sample(self._sampler, self._context, -1)
        return (count - 1) / (time.perf_counter() - start)


@functools.cache
def loaded_prompter(prompter: str) -> OnnxPrompter:
    """The prompter in this process."""
    return load_prompter(prompter, ModelStore.open())


def our_prompter(load: Load) -> float:
    """Our engine on given tokens, so it never stops early: tokens per second after the first."""
    loaded = loaded_prompter(load.model)
    prompt = loaded.prompt_tokens(PROMPT)
    samplers = [GivenTokens([token]) for token in prompt[: load.count]]
    streams = [iter(stream) for stream in loaded.submit(prompt, samplers, load.tokens)]
    for stream in streams:
        next(stream)
    start = time.perf_counter()
    for stream in streams:
        for _ in stream:
            pass
    return load.count * (load.tokens - 1) / (time.perf_counter() - start)


def genai_prompter(load: Load) -> float:
    """The peer's loop on the same graph and prompt."""
    return genai_loop(load.model).decode(load)


@functools.cache
def genai_loop(prompter: str) -> GenaiLoop:
    """The peer's loop of this process."""
    with load_prompter(prompter, ModelStore.open()) as loaded:
        return GenaiLoop(loaded.bundle, loaded.prompt_tokens(PROMPT))


class GenaiLoop:
    """onnxruntime-genai's generator on the graph of a bundle."""

    def __init__(self, bundle: Bundle, prompt: list[int]) -> None:
        import onnxruntime_genai

        self._genai: Any = onnxruntime_genai
        with tempfile.TemporaryDirectory(prefix="genai-") as folder:
            self._model = onnxruntime_genai.Model(str(genai_folder(bundle, Path(folder))))
        self._prompt = prompt
        graph = bundle.sidecar.graph
        self._gate = {} if graph.gate is None else {graph.gate: np.ones(1, graph.io_dtype)}

    def decode(self, load: Load) -> float:
        """Tokens per second after the first, of all sequences together."""
        params = self._genai.GeneratorParams(self._model)
        length = len(self._prompt) + load.tokens
        params.set_search_options(
            max_length=length, min_length=length, batch_size=load.count, do_sample=False
        )
        generator = self._genai.Generator(self._model, params)
        for name, value in self._gate.items():
            generator.set_model_input(name, value)
        generator.append_tokens([self._prompt] * load.count)
        generator.generate_next_token()
        start = time.perf_counter()
        steps = 0
        while not generator.is_done():
            generator.generate_next_token()
            steps += 1
        return load.count * steps / (time.perf_counter() - start)


def genai_folder(bundle: Bundle, folder: Path) -> Path:
    """A folder with links to the graph, and the configuration that genai needs next to it."""
    graph = bundle.sidecar.graph
    for name in bundle.sidecar.files:
        link = folder / name
        if not link.exists():
            link.symlink_to(bundle.path.resolve() / name)
    past, present = "past_key_values.%d.", "present.%d."
    decoder = {
        "session_options": {"log_id": "genai", "intra_op_num_threads": os.cpu_count()},
        "filename": graph.file,
        "head_size": graph.head_dim,
        "hidden_size": graph.head_dim * graph.kv_heads,
        "num_attention_heads": graph.kv_heads,
        "num_hidden_layers": graph.layers,
        "num_key_value_heads": graph.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": past + "key",
            "past_value_names": past + "value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": present + "key",
            "present_value_names": present + "value",
        },
    }
    stops = list(bundle.sidecar.tokens.stop)
    config = {
        "model": {
            "bos_token_id": bundle.sidecar.tokens.bos or 0,
            "eos_token_id": stops,
            "pad_token_id": stops[0],
            "context_length": graph.max_length,
            "vocab_size": graph.vocab,
            "type": "llama",
            "decoder": decoder,
        },
        "search": {"max_length": graph.max_length, "past_present_share_buffer": True},
    }
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


if __name__ == "__main__":
    main()
