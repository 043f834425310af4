"""Token sequences that share beginnings, packed so that each shared token is computed once.

All rewrites of a step continue the same few-shot request, and K of them the same prompt. Packed
as a trie, one forward pass over its nodes gives the log-probability of every sequence exactly,
for about a quarter of the tokens of a padded batch, and there is no padding to mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenTrie:
    """A packed set of sequences, each a context with its continuation.

    Attributes:
        ids: Token of each node; shape (nodes,), int64.
        positions: Depth of each node, the position in its sequence; shape (nodes,), int64.
        visible: visible[i, j]: node j is on the path to node i, itself included; shape
            (nodes, nodes), bool.
        sources: Nodes whose logits are needed, ascending; shape (sources,), int64.
        source: For every continuation token the index into `sources` of the node before it;
            shape (tokens,), int64.
        target: That token; shape (tokens,), int64.
        sequence: The sequence it belongs to; shape (tokens,), int64.
        sequences: How many sequences there are.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    sources: Tensor
    source: Tensor
    target: Tensor
    sequence: Tensor
    sequences: int


def pack(contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> TokenTrie:
    """Pack sequences.

    Args:
        contexts: Token ids that are conditioned on and not scored, none empty.
        continuations: Token ids to be scored, one sequence for each context, none empty.
    """
    nodes: dict[tuple[int, int], int] = {}
    parents: list[int] = []
    ids: list[int] = []
    scored: list[tuple[int, int, int]] = []
    for sequence, (context, tokens) in enumerate(zip(contexts, continuations, strict=True)):
        node = -1
        for place, token in enumerate((*context, *tokens)):
            if place >= len(context):
                scored.append((node, token, sequence))
            if place + 1 == len(context) + len(tokens):
                break  # nothing follows the last token: its own logits are not needed
            parent, node = node, nodes.setdefault((node, token), len(ids))
            if node == len(ids):
                ids.append(token)
                parents.append(parent)
    source, target, sequence_of = (torch.tensor(column) for column in zip(*scored, strict=True))
    sources, source = torch.unique(source, return_inverse=True)
    visible, positions = _ancestors(parents)
    return TokenTrie(
        ids=torch.tensor(ids),
        positions=positions,
        visible=visible,
        sources=sources,
        source=source,
        target=target,
        sequence=sequence_of,
        sequences=len(contexts),
    )


def _ancestors(parents: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The nodes that each node sees, and its depth. Parents come before their children."""
    visible = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            visible[node] |= visible[parent]
    return torch.from_numpy(visible), torch.from_numpy(visible.sum(axis=1) - 1)


def sequence_log_probs(trie: TokenTrie, logits: Tensor) -> Tensor:
    """Log-probability of every continuation, summed over its tokens.

    Args:
        trie: The packed sequences.
        logits: Logits of the nodes in `trie.sources`; shape (sources, vocab).

    Returns:
        Natural log-probabilities at temperature 1; shape (sequences,), float32.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    tokens = log_probs[trie.source, trie.target]
    owner = trie.sequence.to(tokens.device)
    return torch.zeros(trie.sequences, device=tokens.device).index_add(0, owner, tokens)
