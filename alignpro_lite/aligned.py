"""`AlignedModel`: the prompter and the target as one model.

    x -> prompter -> x' -> target -> y

`stream` is the primitive, `run` reads it to the end. Both models decode in
their own engine loop, so many threads may call one AlignedModel.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

from alignpro_lite.answering import AnsweringModel
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.checking import require_keepable
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.errors import AlignProError, InputError
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.plan import Plan
from alignpro_lite.isolated import IsolatedModel
from alignpro_lite.opening import LoadProgress, ModelNames, open_models
from alignpro_lite.prompter.prompter import Prompter, Rewrite, results_of
from alignpro_lite.registry import DEFAULT, ModelStore
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Result
from alignpro_lite.rewriting.spans import compile_patterns, protect
from alignpro_lite.stream import AlignedStream
from alignpro_lite.target.target import LlamaTarget
from alignpro_lite.wire import LoadOrder


class AlignedModel:
    """A prompter and a frozen target, loaded and ready.

    Use it as a context manager, or call `close`, to give the memory back.

    >>> with AlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
    ...     for piece in model.stream("How do I stay safe online?"):
    ...         print(piece, end="")
    """

    def __init__(
        self,
        target: LlamaTarget,
        prompter: Prompter | None,
        plan: Plan,
        reward: Reward | None = None,
    ) -> None:
        self.target = target
        self.prompter = prompter
        self.plan = plan
        self.reward = reward

    @overload
    @classmethod
    def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        reward: str | Path | None = None,
        *,
        models: str = DEFAULT,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
        on_progress: OnProgress = no_progress,
        cancellation: Cancellation | None = None,
        isolated: Literal[False] = False,
    ) -> AlignedModel: ...

    @overload
    @classmethod
    def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        reward: str | Path | None = None,
        *,
        models: str = DEFAULT,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
        on_progress: OnProgress = no_progress,
        cancellation: Cancellation | None = None,
        isolated: bool,
    ) -> AnsweringModel: ...

    @classmethod
    def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        reward: str | Path | None = None,
        *,
        models: str = DEFAULT,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
        on_progress: OnProgress = no_progress,
        cancellation: Cancellation | None = None,
        isolated: bool = False,
    ) -> AnsweringModel:
        """Load the models, at the same time.

        Args:
            target: A GGUF file, a name of models.toml, a pulled model of a hub as
                `hf:owner/repo:Q4_K_M`, or `default`.
            prompter: A bundle folder, a name of models.toml, `self` for the target's own
                weights, `default`, or None to answer prompts as they are.
            reward: A reward bundle, a name of models.toml, `default`, a Python function as
                `package.module:function`, `judge:target` for the target as its own judge, another
                judge as `judge:GGUF-or-name`, or None.
            models: The preset of models.toml whose models `default` stands for.
            devices: Where to run and how long a context.
            cache: Folder of pulled models; None for the platform's own.
            on_progress: Told how far the loading is: which stage, and how many bytes of how many.
                Called from other threads, by one at a time; what it raises ends the loading.
            cancellation: Its `cancel`, called from another thread, ends the loading.
            isolated: Whether the engines run in a process of their own: a fault in native code is
                then a DeviceError, after which the next call works again. What is returned has the
                same methods, and no models to look at. A Python function as reward must then be
                importable from `sys.path`, and not from the current folder.

        Raises:
            CancelledError: It was cancelled.
            AlignProError: A model, a device or a dependency is missing or unusable.
        """
        wanted = cancellation or Cancellation()
        if isolated:
            order = LoadOrder(target, prompter, reward, models, devices, cache)
            return IsolatedModel(order, on_progress, wanted)
        store = ModelStore.open(cache, models)
        progress = LoadProgress(on_progress, wanted)
        found = open_models(ModelNames(target, prompter, reward), store, devices, progress)
        return cls(found.target, found.prompter, found.plan, found.reward)

    def __enter__(self) -> AlignedModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def failure(self) -> AlignProError | None:
        """Why one of its models decodes nothing any more; None while their engines run."""
        rewriting = None if self.prompter is None else self.prompter.failure
        return self.target.engine.failure or rewriting

    def close(self) -> None:
        """Cancel what is running and free the memory."""
        for model in (self.prompter, self.reward, self.target):
            if model is not None:
                model.close()

    def rewrite(
        self,
        prompt: str,
        n: int = 1,
        request: Request = Request(),
        cancellation: Cancellation | None = None,
    ) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it.

        Args:
            prompt: x.
            n: How many; rewrite i is the same whatever n is.
            request: The sampling settings, and the conversation before the prompt.
            cancellation: Its `cancel`, called from another thread, ends the sampling; the rewrites
                are then cut, and their `finish_reason` is `cancelled`.

        Raises:
            InputError: The prompt is empty or not text, or no prompter is loaded.
            ContextOverflowError: The prompt does not fit.
        """
        if self.prompter is None:
            raise InputError("No prompter is loaded.", "Load the model with a prompter.")
        bare = protect(prompt).prompt
        check_prompt(bare)
        usual = request.rewrite_sampling or self.prompter.profile.sampling
        earlier = self.prompter.fitting(bare, request.history)
        sampling = replace(usual, seed=request.sampling.seed)
        streams = self.prompter.start(bare, n, sampling, earlier=earlier)
        (cancellation or Cancellation()).enter(streams)
        return results_of(streams)

    def stream(self, prompt: str, request: Request = Request()) -> AlignedStream:
        """Rewrite a prompt and answer it; iterate over what it returns.

        Raises:
            InputError: The prompt is empty or not text, the target has no switch for thinking, or
                the constraint cannot be kept.
        """
        self.target.thinking.values(request.thinking)
        if request.constraint is not None:
            require_keepable(request.constraint)
        protected = protect(prompt, compile_patterns(request.protect))
        check_prompt(protected.prompt)
        return AlignedStream(
            DrawModels(self.prompter, self.target, self.reward), protected, request
        )

    def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""
        return self.stream(prompt, request).result()
