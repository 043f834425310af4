"""A frozen target in torch, for models that have no GGUF yet; the slow way, by `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.markers import Rendered
from alignpro_lite.decoding.reasoning import begins_inside, reasoning_format, split_reply
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.decoding.thinking import Thinking, ThinkingSwitch
from alignpro_lite.decoding.tokenizer import TextTokenizer
from alignpro_lite.errors import ContextOverflowError, DeviceError
from alignpro_lite.pretrained.padding import left_padded, positions_of
from alignpro_lite.pretrained.torch_model import TorchModel
from alignpro_lite.target.choices import openings
from alignpro_lite.target.rollout import (
    AnswerOrFailure,
    AnswerPlan,
    TargetFailure,
    answer_each,
    answer_of,
)


@dataclass(frozen=True)
class _Draw:
    """What one answer of a batch is drawn from.

    Attributes:
        prompt: Token ids.
        seed: Of the answer.
    """

    prompt: list[int]
    seed: int


class HfTarget:
    """A causal language model in torch, prompted with the same token ids as `LlamaTarget`.

    It is not a stand-in for a deployed GGUF: llama.cpp also rounds activations, which moves the
    log-probabilities of a small quantised model by tenths of a nat and more.
    """

    def __init__(
        self,
        source: TorchModel,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        *,
        rows: int = 16,
    ) -> None:
        """Take over a loaded model.

        Args:
            source: What `load_torch_model` read from a folder or GGUF file; its model is moved to
                the device.
            device: A torch device, such as `cpu` or `cuda:0`.
            dtype: Type of its weights.
            rows: Sequences generated together.
        """
        self._device = torch.device(device)
        self._rows = rows
        self._special = source.special
        self._template = source.chat_template
        self._model: Any = cast(Any, source.model).to(self._device, getattr(torch, dtype))
        # A copy: markers that a user writes are text here, elsewhere they may not be.
        copied = Tokenizer.from_str(source.tokenizer.to_str())
        self._names = {
            "bos_token": _text(copied, source.special.bos),
            "eos_token": _text(copied, source.special.eos),
        }
        self._tokenizer = TextTokenizer(copied, source.chat_template, self._names)
        self._thinking = ThinkingSwitch(source.chat_template, self._names)
        self._reasoning = reasoning_format(source.chat_template)

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Sample answers; see `rollout.Target.answers`.

        The draws of one batch share a random stream, that of its first conversation, so an answer
        also depends on what it is batched with.

        Raises:
            DeviceError: The target is closed.
        """
        self._loaded()

        def prompt(number: int, messages: Sequence[Message]) -> _Draw:
            ids = self.prompt_tokens(messages, plan.switch)
            self._require_room(len(ids), plan.max_tokens)
            return _Draw(ids, seeds[number])

        def answer(asks: list[_Draw]) -> Iterator[list[AnswerOrFailure]]:
            rows = [
                _Draw(ask.prompt, stream_seed(ask.seed, number))
                for ask in asks
                for number in range(plan.count)
            ]
            drawn = self._generate_all(rows, plan)
            return ([next(drawn) for _ in range(plan.count)] for _ in asks)

        return answer_each(conversations, plan.count, prompt, answer)

    @torch.inference_mode()
    def choice_log_probs(
        self,
        conversations: Sequence[Sequence[Message]],
        choices: Sequence[str],
        cancellation: Cancellation | None = None,
    ) -> NDArray[np.float64]:
        """How likely each reply is; see `choices.Chooser.choice_log_probs`.

        Raises:
            DeviceError: The target is closed.
        """
        model = self._loaded()
        common, firsts = openings(choices, self._tokenizer.encode_text)
        prompts = [[*self._reply_prompt(messages), *common] for messages in conversations]
        # Of similar length, so that little is padded.
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found = np.full((len(prompts), len(choices)), np.nan)
        for start in range(0, len(order), self._rows):
            if cancellation is not None and cancellation.asked:
                break
            places = order[start : start + self._rows]
            ids, mask = left_padded([prompts[place] for place in places], self._special.eos)
            logits = model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                position_ids=positions_of(mask).to(self._device),
                logits_to_keep=1,
                use_cache=False,
            ).logits[:, -1]
            found[places] = logits.float().log_softmax(dim=-1)[:, firsts].cpu().numpy()
        return found

    def require_choice_room(self, messages: Sequence[Message], choices: Sequence[str]) -> None:
        """Refuse a conversation without room; see `choices.Chooser.require_choice_room`."""
        common, _ = openings(choices, self._tokenizer.encode_text)
        self._require_room(len(self._reply_prompt(messages)) + len(common), 1)

    def _reply_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the reply begins, without a thought."""
        prompt = self.prompt_tokens(messages, self._thinking.briefly("auto"))
        known = self._reasoning
        if known is None or not begins_inside(prompt, known, self._tokenizer.decode_all):
            return prompt
        ended = Rendered(known.end, own=((0, len(known.end)),))
        return [*prompt, *self._tokenizer.encode(ended)]

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def prompt_tokens(self, messages: Sequence[Message], thinking: Thinking = "auto") -> list[int]:
        """Token ids of a conversation, those that `LlamaTarget.prompt_tokens` gives.

        Raises:
            ModelFileError, InputError: See `render` and `ThinkingSwitch.values`.
        """
        switch = self._thinking.values(thinking)
        ids = self._tokenizer.encode(render(self._template, messages, self._names, switch))
        bos = self._special.bos
        if self._special.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def _loaded(self) -> Any:
        """The model.

        Raises:
            DeviceError: The target is closed.
        """
        if self._model is None:
            raise DeviceError("The target is closed.", "Load the model again.")
        return self._model

    def _require_room(self, prompt: int, max_tokens: int) -> None:
        room = getattr(self._loaded().config, "max_position_embeddings", None)
        if room is not None and prompt + max_tokens > room:
            raise ContextOverflowError(
                f"The target holds {room} tokens, found a prompt of {prompt} and up to "
                f"{max_tokens} new ones.",
                "Shorten the prompt or lower max_tokens.",
            )

    def _generate_all(self, asks: Sequence[_Draw], plan: AnswerPlan) -> Iterator[AnswerOrFailure]:
        """An answer to each ask, in order, batch by batch."""
        for start in range(0, len(asks), self._rows):
            batch = asks[start : start + self._rows]
            sampling = plan.seeded(batch[0].seed)
            try:
                prompts = [ask.prompt for ask in batch]
                yield from self._generate(prompts, plan.max_tokens, sampling)
            # torch raises nothing narrower, for too little memory or for logits that are not
            # finite.
            except RuntimeError as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                yield from [TargetFailure(f"torch cannot generate: {reason}")] * len(batch)

    def _generate(
        self, prompts: Sequence[list[int]], max_tokens: int, sampling: Sampling
    ) -> list[AnswerOrFailure]:
        ids, mask = left_padded(prompts, self._special.eos)
        own_random = torch.random.fork_rng([self._device] if self._device.type == "cuda" else [])
        with torch.inference_mode(), own_random:
            torch.manual_seed(sampling.seed)
            output = self._model.generate(
                ids.to(self._device),
                attention_mask=mask.to(self._device),
                generation_config=self._generation(max_tokens, sampling),
                logits_processor=warpers(sampling),
                use_model_defaults=False,
            )
        drawn = output[:, ids.shape[1] :].tolist()
        return [self._answer(prompt, row) for prompt, row in zip(prompts, drawn, strict=True)]

    def _generation(self, max_tokens: int, sampling: Sampling) -> GenerationConfig:
        """Plain settings: what a model's own files recommend is not what was asked for."""
        return GenerationConfig(
            max_new_tokens=max_tokens,
            eos_token_id=list(self._special.stop),
            pad_token_id=self._special.eos,
            do_sample=sampling.temperature > 0,
            top_k=None,  # the filters come as `warpers`; a 50 would be added to them
        )

    def _answer(self, prompt: list[int], drawn: list[int]) -> AnswerOrFailure:
        """Text and length of one row, which is padded after its stop token."""
        stops = (place for place, token in enumerate(drawn) if token in self._special.stop)
        end = next(stops, None)
        kept = drawn[:end]
        inside = begins_inside(prompt, self._reasoning, self._tokenizer.decode_all)
        return answer_of(
            split_reply(self._tokenizer.decode(kept), self._reasoning, inside=inside),
            tokens=len(drawn) if end is None else end + 1,
            finish_reason="length" if end is None else "stop",
        )


def warpers(sampling: Sampling) -> LogitsProcessorList:
    """The filters of `sampling` for `generate`, in the order that the package draws in.

    That order is top-k, top-p, min-p, temperature; generate's own has the temperature first,
    which makes another distribution of the same settings.

    Args:
        sampling: Its temperature 0 stands for no filter: the most likely token is taken.
    """
    chain = LogitsProcessorList()
    if sampling.temperature == 0:
        return chain
    if sampling.top_k > 0:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        chain.append(MinPLogitsWarper(sampling.min_p))
    chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
    return chain


def _text(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.id_to_token(token) or ""
