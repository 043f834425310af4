"""Decode speed of both engines compared with a plain peer, side by side in one run.

    python benchmarks/engines.py [--target TARGET] [--prompter PROMPTER] [--base GGUF]
                                 [--rounds 7] [--tokens 128]

- Target: the shortest possible loop on llama.cpp's C functions. Both sides use one load of the
  weights, because where weights lie in memory changes the speed by several per cent; each round
  opens a context of its own.
- Prompter: onnxruntime-genai's own C++ loop on the same graph, and with --base the loop on
  llama.cpp's C functions on the file that the prompter was made from. Each side runs in a process
  of its own, because two teams of threads in one process slow each other down.

The sides alternate, and medians are printed. The ratio must be at least 0.70 for the prompter and
0.95 for the target.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import click
import numpy as np

from alignpro_lite import AlignedModel, Message, Sampling
from alignpro_lite.decoding.engine import Engine
from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.decoding.text import decoded
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.loading import load_prompter
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.llama import (
    MICRO_BATCH,
    Drawing,
    LlamaStepper,
    TargetSettings,
    new_sampler,
)

PROMPT = "How do I stay safe online when I use a public network?"

Round = Callable[[], tuple[float, float]]
"""Decodes with our engine and with its peer; tokens per second of both."""


@dataclass(frozen=True)
class Load:
    """What both sides of the prompter decode.

    Attributes:
        model: Name or path of the model.
        count: How many sequences.
        tokens: How many tokens of each.
    """

    model: str
    count: int
    tokens: int


@click.command()
@click.option("--target", default="default", help="GGUF or name of the target.")
@click.option("--prompter", default="default", help="Bundle or name of the prompter.")
@click.option("--base", help="GGUF of the prompter's base, for llama.cpp as its second peer.")
@click.option("--rounds", default=7, help="How often the sides alternate.")
@click.option("--tokens", default=128, help="Tokens of each sequence.")
def main(target: str, prompter: str, base: str | None, rounds: int, tokens: int) -> None:
    """Measure each pair and print a line for it."""
    report("target", 1, functools.partial(LlamaWeights(target).both, tokens), rounds)
    with two_processes(our_prompter, genai_prompter) as measure:
        for count in (1, 4, 8):
            load = Load(prompter, count, tokens)
            report("prompter", count, functools.partial(measure, load), rounds)
    if base is not None:
        with two_processes(our_prompter, functools.partial(plain_base, base)) as measure:
            report("base", 1, functools.partial(measure, Load(prompter, 1, tokens)), rounds)


@contextmanager
def two_processes(
    ours: Callable[[Load], float], peer: Callable[[Load], float]
) -> Iterator[Callable[[Load], tuple[float, float]]]:
    """A process for each side, one of which works at a time."""
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as our_side,
        ProcessPoolExecutor(1, mp_context=spawn) as peer_side,
    ):
        yield lambda load: (
            our_side.submit(ours, load).result(),
            peer_side.submit(peer, load).result(),
        )


def report(name: str, count: int, measure: Round, rounds: int) -> None:
    """Alternate both sides and print the medians and the median of their ratios."""
    speeds = [measure() for _ in range(rounds + 1)][1:]  # the first round warms up
    our_speed, peer_speed = (statistics.median(side) for side in zip(*speeds, strict=True))
    ratio = statistics.median(a / b for a, b in speeds)
    speed = f"{our_speed:7.1f} tok/s, peer {peer_speed:7.1f} tok/s"
    click.echo(f"{name:8} x {count} {speed}, ratio {ratio:.3f}")


class LlamaWeights:
    """One load of a model in llama.cpp, for our engine and for the plain loop.

    Each side opens its context on a thread that ends with it: OpenMP keeps a team for each thread,
    and as soon as there are more threads than cores, none of them waits actively any more.
    """

    def __init__(self, target: str) -> None:
        with AlignedModel.load(target, None) as model:
            self._prompt = model.target.prompt_tokens([Message("user", PROMPT)])
            self._settings = model.target.settings
            self._model = model.target._native  # stays open while it is referred to

    def both(self, tokens: int) -> tuple[float, float]:
        """One round of both sides."""
        return self.ours(tokens), self.plain(tokens)

    def ours(self, tokens: int) -> float:
        """Our engine, greedy: tokens per second after the first."""
        engine = Engine(LlamaStepper(self._model, self._settings), "target", "")
        sampler = new_sampler(self._model, Drawing(Sampling(temperature=0)))
        (stream,) = engine.submit(self._prompt, [sampler], tokens)
        draws = iter(stream)
        next(draws)
        start = time.perf_counter()
        count = sum(1 for _ in decoded(self._model.piece(draw.token) for draw in draws)) - 1
        seconds = time.perf_counter() - start
        engine.close()
        return count / seconds

    def plain(self, tokens: int) -> float:
        """The plain loop on the same prompt."""
        loop = PlainLlamaLoop(self._model.pointer, self._prompt, self._settings)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(loop.decode, tokens).result()


class PlainLlamaLoop:
    """The obvious loop on llama.cpp's C functions: decode, sample, repeat."""

    def __init__(self, model: Any, prompt: list[int], settings: TargetSettings) -> None:
        import llama_cpp

        self._lib: Any = llama_cpp
        self._prompt = prompt
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = settings.context
        params.n_batch = params.n_ubatch = MICRO_BATCH
        params.n_threads = params.n_threads_batch = settings.threads
        self._context: Any = llama_cpp.llama_init_from_model(model, params)
        self._sampler: Any = llama_cpp.llama_sampler_init_greedy()
        weakref.finalize(self, llama_cpp.llama_free, self._context)

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


def plain_base(base: str, load: Load) -> float:
    """The plain loop on the file that a prompter was made from."""
    return loaded_base(base).plain(load.tokens)


@functools.cache
def loaded_base(base: str) -> LlamaWeights:
    """The file in this process."""
    return LlamaWeights(base)


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
        "session_options": {"log_id": "genai", "intra_op_num_threads": usable_cores()},
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
