"""The prompter in torch: ρ_θ is ρ_sft with a LoRA adapter, and ρ_sft the base model.

A reference adapter, if there is one, is merged into the base first: ρ_sft is then the base with it,
and the trained adapter adds to both.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import DynamicCache

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.export.decoder import tokens_of
from alignpro_lite.hardware.llama_build import cpu_flags
from alignpro_lite.pretrained.padding import left_padded, positions_of
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.prompter.tokenizer import PrompterTokenizer
from alignpro_lite.train.prompter.config import LoraSection
from alignpro_lite.train.token_trie import TokenTrie, pack, sequence_log_probs

_PEFT_ADAPTER = "default"
"""Peft's name for the only adapter."""


_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Flags of CPUs that compute in bfloat16, on x86 and Arm."""


class Policy:
    """A trainable prompter with its reference."""

    def __init__(
        self,
        base: Path,
        template: RewriteTemplate,
        section: LoraSection,
        max_tokens: int,
        device: str,
        seed: int,
        reference: Path | None = None,
    ) -> None:
        """Load a base model and give it a fresh adapter, with which ρ_θ is ρ_sft.

        Args:
            base: A Hugging Face folder or a GGUF file.
            template: What the prompter is asked.
            section: Size and type of what is trained.
            max_tokens: A rewrite that reaches it is cut there, and the cut text is the rewrite.
            device: A torch device, such as cpu or cuda:0.
            seed: Seed of the adapter's factors.
            reference: The folder of the adapter that makes ρ_sft of the base; None if ρ_sft is the
                base.

        Raises:
            ExportError: The base cannot be read, or the reference does not fit it.
        """
        torch.manual_seed(seed)
        source = load_torch_model(base)
        if reference is not None:
            source = merge_adapter(source, reference)
        self.tokens = PrompterTokenizer(source.tokenizer, tokens_of(source), template)
        self.max_tokens = max_tokens
        self._device = torch.device(device)
        self._dtype = weights_dtype(section.dtype, self._device)
        frozen = cast(nn.Module, source.model).to(self._dtype)
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=section.rank,
            lora_alpha=cast(int, section.alpha),
            target_modules=section.modules
            if isinstance(section.modules, str)
            else list(section.modules),
        )
        self.model = cast(PeftModel, get_peft_model(frozen, config).to(self._device))

    @cached_property
    def _sampler(self) -> nn.Module:
        """The copy that rewrites are drawn from, made when it is first needed: at first ρ_sft."""
        with torch.inference_mode(False):  # the first draw may ask for it, and it changes later
            return cast(nn.Module, cast(Any, copy.deepcopy(self.model)).unload())

    def log_probs(self, trie: TokenTrie, temperature: float = 1.0) -> Tensor:
        """Log ρ_θ of packed rewrites at a temperature, shape (sequences,), differentiable."""
        return sequence_log_probs(trie, self._logits(trie) / temperature)

    def reference_log_probs(self, trie: TokenTrie, temperature: float = 1.0) -> Tensor:
        """Log ρ_sft of packed rewrites at a temperature, shape (sequences,)."""
        with torch.no_grad(), self.model.disable_adapter():
            return sequence_log_probs(trie, self._logits(trie) / temperature)

    def pack(self, prompts: Sequence[str], outputs: Sequence[Sequence[int]]) -> TokenTrie:
        """Pack rewrites of prompts for scoring; one output for each prompt given."""
        requests = {prompt: self.tokens.request(prompt) for prompt in dict.fromkeys(prompts)}
        return pack([requests[prompt] for prompt in prompts], outputs)

    @torch.no_grad()
    def refresh_sampler(self) -> None:
        """Merge the adapter as it is now into the copy that rewrites are drawn from."""
        for name, layer in self._adapted_layers():
            update = cast(Any, layer).get_delta_weight(_PEFT_ADAPTER)
            self._weight(name).copy_(_frozen(layer) + update)

    @torch.no_grad()
    def reset_sampler(self) -> None:
        """Turn the copy that rewrites are drawn from back into ρ_sft."""
        for name, layer in self._adapted_layers():
            self._weight(name).copy_(_frozen(layer))

    def _adapted_layers(self) -> Iterator[tuple[str, LoraLayer]]:
        """The layers that have an adapter, by their name in the base model."""
        for name, module in self.model.get_base_model().named_modules():
            if isinstance(module, LoraLayer):
                yield name, module

    def _weight(self, name: str) -> Tensor:
        return cast(Tensor, self._sampler.get_submodule(name).weight)

    def sample(
        self, prompts: Sequence[str], count: int, sampling: Sampling
    ) -> list[list[tuple[int, ...]]]:
        """Draw rewrites from ρ_θ as of the last `refresh_sampler`.

        Args:
            prompts: Prompts x, without duplicates.
            count: Rewrites of each.
            sampling: How tokens are drawn, at a temperature above 0.

        Returns:
            For each prompt, `count` outputs as token ids, with the stop token unless they were cut.
        """
        requests = [self.tokens.request(prompt) for prompt in prompts]
        return self.continuations(requests, count, sampling)

    @torch.inference_mode()
    def continuations(
        self, requests: Sequence[Sequence[int]], count: int, sampling: Sampling
    ) -> list[list[tuple[int, ...]]]:
        """Draw what follows requests given as token ids; see `sample`."""
        generator = torch.Generator(self._device).manual_seed(sampling.seed)
        ids, mask = left_padded(requests, fill=0)
        mask = mask.to(self._device)
        cache = DynamicCache()
        logits = self._step(ids, mask, cache)
        cache.batch_repeat_interleave(count)
        mask, logits = mask.repeat_interleave(count, 0), logits.repeat_interleave(count, 0)
        outputs: list[list[int]] = [[] for _ in range(len(requests) * count)]
        live = list(range(len(outputs)))
        while True:
            drawn = draw_tokens(logits, sampling, generator)
            for row, token in zip(live, drawn, strict=True):
                outputs[row].append(token)
            going = [place for place, token in enumerate(drawn) if not self._ends(token)]
            if not going or len(outputs[live[0]]) == self.max_tokens:
                break
            if len(going) < len(live):
                kept = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(kept)
                mask, live = mask[kept], [live[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            logits = self._step(torch.tensor(drawn)[going][:, None], mask, cache)
        return [
            [tuple(output) for output in outputs[start : start + count]]
            for start in range(0, len(outputs), count)
        ]

    def _ends(self, token: int) -> bool:
        return token in self.tokens.stop

    def _step(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Append tokens to every row of the cache; logits of the last one, shape (rows, vocab)."""
        positions = positions_of(mask)[:, -ids.shape[1] :]
        output = self._sampler(
            input_ids=ids.to(mask.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        )
        return cast(Tensor, output.logits[:, -1])

    def _logits(self, trie: TokenTrie) -> Tensor:
        device, mixed = self._device, self._dtype != torch.float32
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            output = self.model(
                input_ids=trie.ids[None].to(device),
                position_ids=trie.positions[None].to(device),
                attention_mask=trie.visible[None, None].to(device),
                logits_to_keep=trie.sources.to(device),
                use_cache=False,
            )
        return cast(Tensor, output.logits[0])


def weights_dtype(
    wanted: Literal["auto", "bfloat16", "float32"], device: torch.device
) -> torch.dtype:
    """The type that frozen weights get; see `LoraSection.dtype`."""
    if wanted != "auto":
        return cast(torch.dtype, getattr(torch, wanted))
    computes = device.type != "cpu" or not _BFLOAT16.isdisjoint(cpu_flags())
    return torch.bfloat16 if computes else torch.float32


def draw_tokens(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> list[int]:
    """Draw the next token of every row, by the filters of `decoding.sampling` in their order.

    Args:
        logits: Shape (rows, vocab).
        sampling: How tokens are drawn, at a temperature above 0; its seed is not used.
        generator: What draws, on the device of the logits.
    """
    logits = logits.float()
    if (sampling.top_k, sampling.top_p, sampling.min_p) == (0, 1.0, 0.0):
        chances = (logits / sampling.temperature).softmax(dim=-1)
        places = torch.multinomial(chances, 1, generator=generator)
        return cast(list[int], places[:, 0].tolist())
    kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    values, ids = logits.topk(kept, dim=-1)  # sorted, most likely first
    chances = values.softmax(dim=-1)
    in_nucleus = chances.cumsum(dim=-1) - chances < sampling.top_p
    is_likely = chances >= sampling.min_p * chances[:, :1]
    values = values.masked_fill(~(in_nucleus & is_likely), -math.inf)
    chances = (values / sampling.temperature).softmax(dim=-1)
    places = torch.multinomial(chances, 1, generator=generator)
    return cast(list[int], ids.gather(1, places)[:, 0].tolist())


def _frozen(layer: LoraLayer) -> Tensor:
    return cast(Tensor, layer.get_base_layer().weight)
