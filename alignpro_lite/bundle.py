"""The bundle: a folder that holds a prompter, and the sidecar that describes it.

The sidecar is the contract between export and runtime. Unknown keys and
versions are refused, every file's sha256 is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import repeat
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from alignpro_lite.errors import BundleError, InputError
from alignpro_lite.registry.cache import Check
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.sampling import Sampling
from alignpro_lite.template import RewriteTemplate

T = TypeVar("T")

FORMAT_VERSION = 1
SIDECAR = "bundle.json"
_REMAKE = "Make it again with `alignpro-lite export bundle` or `export prompter`."

Precision = Literal["int4", "int8", "fp16", "fp32"]
Device = Literal["cpu", "cuda"]
CacheLayout = Literal["shared", "growing"]
IoDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Graph:
    """The decoder graph and the sizes of its buffers.

    Attributes:
        file: The ONNX file, relative to the bundle.
        cache: `shared` reads and writes one KV buffer in place (grouped-query
            attention); `growing` returns a longer copy at every step.
        device: What it was built for, `cpu` or `cuda`.
        precision: Of the weights.
        io_dtype: Of logits and KV cache, `float32` or `float16`.
        layers: Decoder layers.
        kv_heads: Key/value heads a layer.
        head_dim: Numbers a head.
        vocab: Size of the logits.
        max_length: Most tokens of a sequence.
    """

    file: str
    cache: CacheLayout
    device: Device
    precision: Precision
    io_dtype: IoDtype
    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_length: int


@dataclass(frozen=True)
class Tokens:
    """Special tokens and how a prompt is tokenised.

    Attributes:
        file: The tokenizer file, relative to the bundle.
        bos: Id put first when the template does not, or None.
        stop: Ids that end a rewrite.
        chat_template: The base model's Jinja template, or None.
        names: Values for template names such as `bos_token`.
    """

    file: str
    bos: int | None
    stop: tuple[int, ...]
    chat_template: str | None
    names: Mapping[str, str]


@dataclass(frozen=True)
class Parity:
    """How close the graph is to the torch model it was made from.

    Attributes:
        positions: Tokens of real text compared.
        argmax_agreement: Share of positions with the same most likely token.
        required: The share that this precision has to reach.
        max_logit_error: Largest absolute difference of a logit.
        greedy_agreement: Share of greedily generated tokens that agree before the first difference.
        mismatch_allowed: True if it was below and written all the same.
    """

    positions: int
    argmax_agreement: float
    required: float
    max_logit_error: float
    greedy_agreement: float
    mismatch_allowed: bool


@dataclass(frozen=True)
class Provenance:
    """What the prompter was made from.

    Attributes:
        base_model: Name of the base model.
        adapter: Name of the LoRA adapter merged into it, None for rho_sft itself.
        strength: The prompter tuning parameter λ it was trained with, None if untrained.
        reward: Name of the reward it was trained on, None if untrained.
    """

    base_model: str
    adapter: str | None
    strength: float | None
    reward: str | None


@dataclass(frozen=True)
class Sidecar:
    """All that the runtime has to know about a bundle.

    Attributes:
        format: Version of this description.
        graph: The decoder.
        tokens: The tokenizer.
        template: The rewrite template.
        sampling: How rewrites are drawn unless the caller says otherwise.
        max_tokens: The most tokens of a rewrite, the stop token included.
        parity: The comparison with torch.
        provenance: Where it comes from.
        files: sha256 of every other file of the bundle, by relative name.
        eval_card: Results of an evaluation, empty if none was made.
    """

    format: int
    graph: Graph
    tokens: Tokens
    template: RewriteTemplate
    sampling: Sampling
    max_tokens: int
    parity: Parity
    provenance: Provenance
    files: Mapping[str, str]
    eval_card: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked."""

    path: Path
    sidecar: Sidecar

    @property
    def graph_file(self) -> Path:
        """The ONNX decoder."""
        return self.path / self.sidecar.graph.file

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer."""
        return self.path / self.sidecar.tokens.file

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        return sum((self.path / name).stat().st_size for name in self.sidecar.files)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file of it.

    Raises:
        BundleError: Something is missing, altered or of an unknown format.
    """
    bundle = Bundle(path, read_sidecar(path))
    for check in check_files(bundle):
        if check.state == "missing":
            raise BundleError(f"{check.path} of the bundle is missing.", _REMAKE)
        if check.state == "altered":
            raise BundleError(
                f"{check.path} was altered: sha256 {check.expected} expected, {check.found} found.",
                _REMAKE,
            )
    return bundle


def read_sidecar(path: Path) -> Sidecar:
    """Read the description of a bundle without touching its other files.

    Raises:
        BundleError: It is missing or not understood.
    """
    file = path / SIDECAR
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"A prompter bundle is a folder with a {SIDECAR}, found none in {path}.", _REMAKE
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON ({error}).", _REMAKE) from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{file} must have format {FORMAT_VERSION}, found {version!r}.",
            f"{_REMAKE[:-1]}, or upgrade alignpro-lite if the bundle is newer.",
        )
    return _parse(raw, file)


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write the description into a bundle under construction."""
    text = json.dumps(asdict(sidecar), indent=2, ensure_ascii=False)
    (path / SIDECAR).write_text(text + "\n", encoding="utf-8")


def check_files(bundle: Bundle) -> tuple[Check, ...]:
    """Compare every file with its digest, several at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(pool.map(_check_file, repeat(bundle.path), bundle.sidecar.files.items()))


def _check_file(folder: Path, file: tuple[str, str]) -> Check:
    path, expected = folder / file[0], file[1]
    if not path.is_file():
        return Check(path, "missing", expected, None)
    found = sha256_of(path, path.name)
    return Check(path, "ok" if found == expected else "altered", expected, found)


def _parse(raw: dict[str, Any], file: Path) -> Sidecar:
    _check(Sidecar, raw, file)
    sidecar = Sidecar(
        format=raw["format"],
        graph=_part(Graph, raw["graph"], file),
        tokens=_tokens(_part(Tokens, raw["tokens"], file)),
        template=_template(_part(RewriteTemplate, raw["template"], file)),
        sampling=_part(Sampling, raw["sampling"], file),
        max_tokens=raw["max_tokens"],
        parity=_part(Parity, raw["parity"], file),
        provenance=_part(Provenance, raw["provenance"], file),
        files=raw["files"],
        eval_card=raw["eval_card"],
    )
    _check_names(sidecar, file)
    _check_values(sidecar, file)
    return sidecar


def _check_names(sidecar: Sidecar, file: Path) -> None:
    """Every file lies in the bundle, and none is used without a digest."""
    for name in sidecar.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{file} names a file outside the bundle: {name}.", _REMAKE)
    for name in (sidecar.graph.file, sidecar.tokens.file):
        if name not in sidecar.files:
            raise BundleError(f"{file} has no digest of {name}.", _REMAKE)


def _check_values(sidecar: Sidecar, file: Path) -> None:
    """Sizes and ids that would reach native code are in range."""
    graph, tokens = sidecar.graph, sidecar.tokens
    sizes = (graph.layers, graph.kv_heads, graph.head_dim, graph.vocab, graph.max_length)
    ids = (*tokens.stop, *(() if tokens.bos is None else (tokens.bos,)))
    wrong = {
        "a size below 1": min(*sizes, sidecar.max_tokens) < 1,
        "no stop token": not tokens.stop,
        "a token outside its vocabulary": not all(0 <= token < graph.vocab for token in ids),
        "a template without {prompt}": "{prompt}" not in sidecar.template.request,
    }
    for what, found in wrong.items():
        if found:
            raise BundleError(f"{file} has {what}.", _REMAKE)


def _part(kind: type[T], raw: Any, file: Path) -> T:
    _check(kind, raw, file)
    try:
        return kind(**raw)
    except InputError as error:
        raise BundleError(f"{file}: {error.problem}", _REMAKE) from error


def _check(kind: type, raw: Any, file: Path) -> None:
    """Compare keys and types with the fields of a dataclass."""
    what = kind.__name__.lower()
    _require_keys(raw, kind, what, file)
    for key, expected in get_type_hints(kind).items():
        if not _is_a(raw[key], expected):
            raise BundleError(
                f"{file}: {key!r} of {what} must be {expected}, found {raw[key]!r:.80}.", _REMAKE
            )


def _is_a(value: Any, expected: Any) -> bool:
    """Whether a JSON value fits the type of a field."""
    origin, parts = get_origin(expected), get_args(expected)
    if expected is Any:
        return True
    if origin is Literal:
        return value in parts
    if origin is UnionType:
        return any(_is_a(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and _are_all(value, parts)
    if origin is Mapping:
        return isinstance(value, dict) and all(_is_a(item, parts[1]) for item in value.values())
    if is_dataclass(expected):
        return isinstance(value, dict)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _are_all(values: list[Any], parts: tuple[Any, ...]) -> bool:
    """Whether a JSON list fits `tuple[part, ...]` or `tuple[part, part]`."""
    if parts[-1] is Ellipsis:
        return all(_is_a(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(map(_is_a, values, parts))


def _tokens(raw: Tokens) -> Tokens:
    return Tokens(raw.file, raw.bos, tuple(raw.stop), raw.chat_template, raw.names)


def _template(raw: RewriteTemplate) -> RewriteTemplate:
    pairs = tuple((prompt, output) for prompt, output in raw.examples)
    return RewriteTemplate(raw.mode, raw.system, raw.request, pairs)


def _require_keys(raw: Any, kind: type, what: str, file: Path) -> None:
    if not isinstance(raw, dict):
        raise BundleError(f"{file}: {what} must be a table, found {type(raw).__name__}.", _REMAKE)
    expected = {field.name for field in fields(cast(Any, kind))}
    if unknown := sorted(raw.keys() - expected):
        raise BundleError(f"{file}: {what} has an unknown key {unknown[0]!r}.", _REMAKE)
    if missing := sorted(expected - raw.keys()):
        raise BundleError(f"{file}: {what} lacks the key {missing[0]!r}.", _REMAKE)
