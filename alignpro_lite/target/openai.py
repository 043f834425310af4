"""A frozen target behind an OpenAI-compatible endpoint: vLLM, llama-server, or a paid service."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeAlias

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.decoding.thinking import switch_values
from alignpro_lite.errors import InputError
from alignpro_lite.registry.http import HttpError
from alignpro_lite.target.endpoint import Endpoint
from alignpro_lite.target.rollout import (
    AnswerOrFailure,
    AnswerPlan,
    TargetFailure,
    answer_each,
    answer_of,
)

_MISFITS = frozenset((400, 422))
"""Statuses with which services that give one choice per request refuse `n` above 1."""

_THOUGHTS = ("reasoning_content", "reasoning")
"""What servers call the thought of a model."""

_WAKE_SECONDS = 0.2
"""A waiting caller wakes this often, because Windows delivers Ctrl-C only between waits."""

_Ask: TypeAlias = Callable[[], list[AnswerOrFailure]]
"""One conversation, ready to be sent."""


class OpenAiTarget:
    """Answers by POST {base_url}/chat/completions.

    Temperature, top-p and seed are always sent; whether a seed repeats an answer is up to the
    endpoint. top-k and min-p, which not every endpoint knows, are sent where they are set; where
    they are not, the endpoint's own defaults apply (llama-server: 40 and 0.05).

    Thoughts are left out where the endpoint keeps them apart from the answer, as vLLM and
    llama-server do on request. `thinking` is sent as variables of the chat template, or not at all
    if it is not set.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str | None = None,
        *,
        timeout: float = 300.0,
        parallel: int = 8,
        retry_pauses: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    ) -> None:
        """Check the settings; the endpoint is not called yet.

        Args:
            base_url: http or https, up to where `/chat/completions` follows; usually ends in /v1.
            model: The name of the model there.
            key_variable: Name of the environment variable that holds the key, None for no key.
            timeout: Seconds of silence after which an attempt has failed; an endpoint is silent
                until all answers of a request are complete.
            parallel: How many requests may be under way at once.
            retry_pauses: Seconds before each further attempt after a transient failure.

        Raises:
            InputError: The address or the key cannot be used, see `Endpoint`, or a number is out
                of range.
        """
        if timeout <= 0 or parallel < 1:
            raise InputError(
                f"Expected a timeout above 0 and at least 1 parallel request, found "
                f"{timeout:g} s and {parallel}.",
                "Correct timeout or parallel.",
            )
        url = base_url.rstrip("/") + "/chat/completions"
        self._endpoint = Endpoint(url, key_variable, timeout, retry_pauses)
        self._model = model
        self._gate = threading.Semaphore(parallel)

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Sample answers; see `rollout.Target.answers`.

        Raises:
            InputError: The endpoint would refuse every request: the address, the key or the
                model is wrong.
            CancelledError: The target is closed.
        """

        def request(number: int, messages: Sequence[Message]) -> _Ask:
            return functools.partial(self._ask, messages, plan, seeds[number])

        return answer_each(conversations, plan.count, request, self._answers)

    def close(self) -> None:
        """End retries; requests under way end by themselves."""
        self._endpoint.close()

    def _answers(self, requests: list[_Ask]) -> list[list[AnswerOrFailure]]:
        futures = [_in_background(self._gate, ask) for ask in requests]
        try:
            return [_result(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _ask(
        self, messages: Sequence[Message], plan: AnswerPlan, seed: int
    ) -> list[AnswerOrFailure]:
        """Ask for all answers at once, and again for those that do not come."""
        answers: list[AnswerOrFailure] = []
        at_once = plan.count
        while missing := plan.count - len(answers):
            count = min(at_once, missing)
            body = self._body(messages, plan.with_count(count), stream_seed(seed, len(answers)))
            try:
                answers += _choices(self._endpoint.post(body), self._endpoint.shown)[:count]
            except HttpError as error:
                if count > 1 and error.status in _MISFITS:
                    at_once = 1
                    continue
                answers += [TargetFailure(str(error))] * missing
        return answers

    def _body(self, messages: Sequence[Message], plan: AnswerPlan, seed: int) -> dict[str, Any]:
        sampling = plan.seeded(seed)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [turn.as_dict() for turn in messages],
            "n": plan.count,
            "max_tokens": plan.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed >> 1,  # some endpoints take 31 bits only
        }
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.min_p > 0:
            body["min_p"] = sampling.min_p
        if plan.thinking is not None:
            body["chat_template_kwargs"] = switch_values(plan.thinking)
        return body


def _choices(answer: Any, shown: Callable[[Any], str]) -> list[AnswerOrFailure]:
    """The choices of a chat completion, at least one.

    Args:
        answer: The decoded JSON.
        shown: Makes what the endpoint said fit for a message.

    Raises:
        HttpError: It is not a chat completion.
    """
    try:
        choices = [
            (choice["message"], choice["message"].get("content"), choice.get("finish_reason"))
            for choice in answer["choices"]
        ]
    except (TypeError, KeyError, AttributeError):
        choices = []
    if not choices:
        raise HttpError(f"expected a chat completion with choices, found {shown(answer)}")
    tokens = _completion_tokens(answer) if len(choices) == 1 else None
    return [
        _answer(_reply(message), reason, tokens)
        if isinstance(text, str) or _thought(message)
        else TargetFailure(f"expected a text as answer, found {shown(text)} ({shown(reason)})")
        for message, text, reason in choices
    ]


def _answer(reply: Reply, reason: Any, tokens: int | None) -> AnswerOrFailure:
    return answer_of(reply, tokens, reason if isinstance(reason, str) else "stop")


def _reply(message: dict[str, Any]) -> Reply:
    """What a message says and what was thought before it."""
    # JSON can spell halves of characters, which no file or tokenizer takes.
    text = (message.get("content") or "").encode("utf-8", errors="replace").decode("utf-8")
    thought = _thought(message)
    return Reply(thought, text, thought_only=bool(thought) and not text.strip())


def _thought(message: dict[str, Any]) -> str:
    """What a model thought, where its server keeps that apart from the answer."""
    found = (message.get(name) for name in _THOUGHTS)
    return next((thought for thought in found if isinstance(thought, str)), "")


def _completion_tokens(answer: dict[str, Any]) -> int | None:
    """What was drawn for all choices together, where the endpoint counts."""
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def _result(future: Future[list[AnswerOrFailure]]) -> list[AnswerOrFailure]:
    while not future.done():
        wait([future], _WAKE_SECONDS)
    return future.result()


def _in_background(gate: threading.Semaphore, ask: _Ask) -> Future[list[AnswerOrFailure]]:
    """Run a call on a thread of its own once the gate lets it.

    The threads of `ThreadPoolExecutor` would keep an interrupted program from ending for as long
    as the endpoint is silent; daemons do not.
    """
    future: Future[list[AnswerOrFailure]] = Future()

    def work() -> None:
        with gate:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(ask())
            except BaseException as error:  # noqa: BLE001 - raised where the result is read
                future.set_exception(error)

    threading.Thread(target=work, name="endpoint", daemon=True).start()
    return future
