"""In the child process of `decoding/probe.py`: load a model, and make it do what it may be asked.

The texts are those on which damaged and crafted files fail: every script, control characters,
texts that look like tokens, long runs of one letter, and what the tokenizer's own rules name.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.onnx_data import require_listed
from alignpro_lite.decoding.probe import ProbedKind
from alignpro_lite.decoding.sampling import Sampler, Sampling
from alignpro_lite.decoding.tokenizer import read_tokenizer, tokenizer_errors
from alignpro_lite.errors import AlignProError, BundleError, ContextOverflowError, DeviceError
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE, open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.reward.bundle import REWARD_BUNDLE
from alignpro_lite.reward.exchange import Exchange, encode, text_only
from alignpro_lite.reward.onnx_reward import OnnxScorer
from alignpro_lite.target.llama import LoraAdapter, TargetSettings
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget

_SURROGATES = range(0xD800, 0xE000)
_STEP = 97
HARD_TEXTS = (
    "Hello.",
    "Café, naïve, Größe, ﬁn, e\u0301, ½ ① Ⅷ 10²",
    "日本語 中文 한국어 العربية עברית हिन्दी ไทย Ελληνικά Русский አማርኛ",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 \U0001d518\U0001d52b 😀",
    "".join(map(chr, range(0x100))),
    "\u200b\u200d\u2028\u202e\ufeff\ufffd\ufffe\U0001f3fb\U000e0041\U0010ffff",
    "".join(chr(code) for code in range(0x100, 0x30000, _STEP) if code not in _SURROGATES),
    "<0x00> <0xFF> <0xZZ> <|endoftext|> <|im_start|> </s> <s> [INST] <unk> [CLS] ▁a Ġa Ċ ##a",
    *(letter * 100 for letter in ("a", "A", "1", "é", "漢", "😀", " ", "\n", "\t", ".", "'", "\0")),
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa! 1 2  3   4\n\n\n5\r\n\t6'll don't I'VE x=y;//z {}[]()",
)
_NEW_TOKENS = 3


def findings(question: str) -> list[str] | None:
    """Try the model that `decoding/probe.py` asks for.

    Returns:
        None if it works, else class, problem and cure of its error.
    """
    kind, path, settings = json.loads(question)
    try:
        _try(kind, Path(path), settings)
    except ContextOverflowError:
        pass  # a context too small for these texts is what the user asked for
    except AlignProError as error:
        return [type(error).__name__, error.problem, error.cure]
    return None


def _try(kind: ProbedKind, path: Path, settings: Mapping[str, Any]) -> None:
    match kind:
        case "target":
            _try_target(path, TargetSettings(**settings))
        case "adapter":
            _try_adapter(path, Path(settings["base"]), TargetSettings(**settings["target"]))
        case "prompter":
            _try_prompter(path, DecoderSettings(**settings))
        case "reward":
            _try_reward(path, **settings)


def _try_target(path: Path, settings: TargetSettings) -> None:
    file = read_header(path)
    require_text_generation(file)
    with LlamaTarget(path, file, settings) as target:
        for text in HARD_TEXTS:
            target.prompt_tokens([Message("user", text)])
        for token in range(file.vocab_size):
            target.piece(token)
        count = min(2, settings.sequences)
        question = Question([Message("user", HARD_TEXTS[1])], _NEW_TOKENS, count=count)
        for stream in target.answer(question):
            list(stream)


def _try_adapter(path: Path, base: Path, settings: TargetSettings) -> None:
    """The base passed a probe of its own, so that its weights alone can be trusted."""
    with LlamaTarget(base, read_header(base), settings) as target:
        adapted = target.adapted(LoraAdapter(path), settings.context)
        try:
            tokens = target.encode(HARD_TEXTS[1])
            for stream in adapted.submit(tokens, [Sampler(Sampling(), 0)], _NEW_TOKENS):
                list(stream)
        finally:
            adapted.close()


def _try_prompter(path: Path, settings: DecoderSettings) -> None:
    bundle = open_bundle(path)
    require_listed(bundle.graph_file, bundle.sidecar.files, PROMPTER_BUNDLE.cure)
    with OnnxPrompter(bundle, settings) as prompter:
        for text in (*HARD_TEXTS, *_named_texts(bundle.tokenizer_file)):
            prompter.prompt_tokens(text)
            prompter.decode(prompter.encode(text))
        for token in range(bundle.sidecar.graph.vocab):
            prompter.decode([token])
        count = min(2, settings.sequences)
        samplers = [Sampler(Sampling(), number) for number in range(count)]
        tokens = prompter.encode(HARD_TEXTS[1])  # a whole request has hundreds
        try:
            for stream in prompter.submit(tokens, samplers, _NEW_TOKENS):
                list(stream)
        except DeviceError as error:  # whatever onnxruntime says of a graph that it has loaded
            raise BundleError(f"{path}: {error.problem}", PROMPTER_BUNDLE.cure) from error


def _try_reward(path: Path, threads: int) -> None:
    sidecar = REWARD_BUNDLE.open(path)
    require_listed(path / sidecar.model.graph, sidecar.files, REWARD_BUNDLE.cure)
    model = sidecar.model
    scorer = OnnxScorer(path, model, threads)
    file = path / model.tokenizer
    with tokenizer_errors(file, REWARD_BUNDLE.cure):
        tokenizer = text_only(read_tokenizer(file, REWARD_BUNDLE.cure))
        texts = (*HARD_TEXTS, *_named_texts(file))
        encode(tokenizer, model.layout, [Exchange(text, text) for text in texts])
    scores = scorer.score([Exchange(text, text) for text in HARD_TEXTS[:2]])
    if not all(map(math.isfinite, scores.flat)):
        raise BundleError(f"{path} gives scores that are not numbers.", REWARD_BUNDLE.cure)


def _named_texts(tokenizer: Path) -> Iterator[str]:
    """Texts that the rules of a tokenizer.json name, beside its vocabulary."""
    rules = json.loads(tokenizer.read_text(encoding="utf-8"))
    named = {
        text
        for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens")
        for text in _strings(rules.get(key))
    }
    for text in sorted(named):
        yield text
        yield text * 30


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:1000]
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


if __name__ == "__main__":
    print(json.dumps(findings(sys.argv[1])))
