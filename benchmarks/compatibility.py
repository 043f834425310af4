"""What servers make of 50 requests that OpenAI's clients and API reference document.

    python benchmarks/compatibility.py [--target TARGET] [--prompter PROMPTER]
        [--url NAME=URL ...] [--key KEY]

Starts a server of this package and asks it; `--url` names others that are already running and gives
what clients call their base URL, with /v1. The official client asks; httpx sends what it cannot,
such as broken JSON. The table says of each request:

- yes: the answer has the documented form and shows what was asked for, or a wrong request got an
  error with the documented status and `error.message`.
- refused clearly: another status of 4xx, or such a status where an answer was due, with words.
- ignored: 200, but nothing shows the effect.
- wrong: 5xx, no answer in time, an error without words, or an answer of another form.

The exit status is 1 if the server of this package ignores a request or is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import openai

Verdict = Literal["yes", "refused clearly", "ignored", "wrong"]
Body = dict[str, Any]
Shows = Callable[..., bool]
"""Told the reply to each body of a case, in order; whether the last ones show what was asked."""

SECONDS = 60.0
"""After which a server has not answered."""
NO_ANSWER = 0
"""The status of a reply that did not come, or that the client could not read."""
BAD_REQUEST = frozenset((400, 422))
NOT_FOUND = frozenset((404,))
ENDS = ("stop", "length", "tool_calls", "content_filter", "function_call")


@dataclass(frozen=True)
class Piece:
    """In a body: a piece of the first answer's text, so that a stop string occurs in it."""

    start: int
    end: int


@dataclass(frozen=True)
class Reply:
    """What a server made of a body.

    Attributes:
        status: Of HTTP, or NO_ANSWER.
        data: JSON, the chunks of a stream as a list, or text.
    """

    status: int
    data: Any

    @property
    def choices(self) -> list[Any]:
        """Of a whole answer, or of all chunks."""
        parts = self.data if isinstance(self.data, list) else [self.data]
        return [choice for part in parts for choice in part.get("choices", ())]

    @property
    def texts(self) -> list[str]:
        """The text of each answer."""
        said: defaultdict[int, str] = defaultdict(str)
        for choice in self.choices:
            held = choice.get("message") or choice.get("delta") or choice
            said[choice["index"]] += held.get("content") or held.get("text") or ""
        return [said[index] for index in sorted(said)]

    @property
    def text(self) -> str:
        """Of the first answer."""
        return self.texts[0]

    @property
    def ends(self) -> list[str]:
        """Why each answer ended."""
        ends = {choice["index"]: choice.get("finish_reason") for choice in self.choices}
        return [ends[index] for index in sorted(ends)]

    def used(self, kind: Literal["prompt_tokens", "completion_tokens"]) -> int:
        """Tokens, as a whole answer counts them."""
        return int(self.data["usage"][kind])


def anything(*replies: Reply) -> bool:
    """Whatever they are."""
    return True


@dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
        name: What it asks for.
        route: A method of the official client, or a method and a path for httpx.
        bodies: What is sent, one after another: the last one may need others to compare with.
        shows: What the replies must show beside the documented form.
        refused: The documented statuses of a request that is wrong; empty for one that is right.
    """

    name: str
    route: str
    bodies: Sequence[Body]
    shows: Shows = anything
    refused: frozenset[int] = frozenset()


def chat(name: str, *changes: Body, shows: Shows) -> Case:
    """A chat completion."""
    return Case(name, "chat", [CHAT | change for change in changes], shows)


def completion(name: str, *changes: Body, shows: Shows) -> Case:
    """A completion."""
    return Case(name, "completion", [COMPLETION | change for change in changes], shows)


def bad(name: str, route: str, body: Body, refused: frozenset[int], shows: Shows) -> Case:
    """A request that is wrong."""
    return Case(name, route, [body], shows, refused)


def says(*turns: tuple[str, Any]) -> Body:
    """Messages."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


QUESTION = "Say something about the sky."
GREEDY: Body = {"max_tokens": 24, "temperature": 0, "seed": 1}
FREE: Body = {"temperature": 1, "top_p": 1}
CHAT: Body = {**says(("user", QUESTION)), **GREEDY}
COMPLETION: Body = {"prompt": QUESTION, **GREEDY}
FORM = {
    "type": "object",
    "properties": {"sky": {"type": "string", "enum": ["blue", "grey"]}},
    "required": ["sky"],
    "additionalProperties": False,
}
SCHEMA: Body = {"type": "json_schema", "json_schema": {"name": "sky", "schema": FORM}}
TOOL: Body = {"type": "function", "function": {"name": "report", "parameters": FORM}}


def is_text(reply: Reply) -> bool:
    """Whether there is a text."""
    return bool(reply.text)


def is_another(first: Reply, second: Reply) -> bool:
    """Whether two texts differ."""
    return first.text != second.text


def is_the_same(first: Reply, second: Reply) -> bool:
    """Whether two texts are the same."""
    return first.text == second.text


def reads_another(first: Reply, second: Reply) -> bool:
    """Whether two prompts differ: a template may have a longer system message of its own."""
    return second.used("prompt_tokens") != first.used("prompt_tokens")


def is_cut(first: Reply, second: Reply) -> bool:
    """Whether the second answer is the first one up to its stop string, Piece(1, 3)."""
    stop = first.text[1:3]
    return second.text == first.text[: first.text.index(stop)] and second.ends == ["stop"]


def has_five_tokens(reply: Reply) -> bool:
    """Whether an answer is cut at five tokens; three more may end a character of several bytes."""
    return 5 <= reply.used("completion_tokens") <= 8 and reply.ends == ["length"]


def repeats_with_its_seed(first: Reply, again: Reply, other: Reply) -> bool:
    """Whether a seed gives its text again, and another seed another text."""
    return first.text == again.text != other.text


def are_two(reply: Reply) -> bool:
    """Whether there are two texts."""
    return len(set(reply.texts)) == 2


def tells_usage(reply: Reply) -> bool:
    """Whether the last chunk of a stream counts tokens, and has no choice."""
    last = reply.data[-1]
    return not last["choices"] and last["usage"]["completion_tokens"] > 0


def comes_in_pieces(reply: Reply) -> bool:
    """Whether a stream has a text in several chunks."""
    return is_text(reply) and len(reply.data) > 2


def is_one_token(first: Reply, second: Reply) -> bool:
    """Whether an answer is a token over and over, whose bias is 100."""
    length = len(second.text) // 6
    return first.text != second.text and second.text == second.text[:length] * 6 != ""


def lists_tokens(reply: Reply) -> bool:
    """Whether an answer has the log-probabilities of its tokens."""
    tokens = (reply.choices[0].get("logprobs") or {}).get("content") or []
    return bool(tokens) and all(token["token"] and token["logprob"] <= 0 for token in tokens)


def lists_two_others(reply: Reply) -> bool:
    """Whether it also has two alternatives to each."""
    tokens = (reply.choices[0].get("logprobs") or {}).get("content") or []
    return bool(tokens) and all(len(token.get("top_logprobs") or ()) == 2 for token in tokens)


def lists_completion_tokens(reply: Reply) -> bool:
    """Whether a completion has them in its older form."""
    found = reply.choices[0].get("logprobs") or {}
    tokens, others = found.get("tokens") or [], found.get("top_logprobs") or []
    return len(tokens) == len(found.get("token_logprobs") or ()) > 0 and len(others[0]) >= 2


def is_json_object(reply: Reply) -> bool:
    """Whether an answer is an object, or the beginning of one if it was cut."""
    if reply.ends == ["length"]:
        return reply.text.lstrip().startswith("{")
    return isinstance(parsed(reply.text), dict)


def has_the_form(text: str) -> bool:
    """Whether a text is JSON that is valid under FORM."""
    return parsed(text) in ({"sky": "blue"}, {"sky": "grey"})


def parsed(text: str) -> Any:
    """JSON; None if a text is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def calls_the_tool(reply: Reply) -> bool:
    """Whether an answer is a call with arguments of the right form."""
    calls = reply.choices[0]["message"].get("tool_calls") or []
    told = [call["function"] for call in calls]
    return [call["name"] for call in told] == ["report"] and has_the_form(told[0]["arguments"])


def is_vector(reply: Reply) -> bool:
    """Whether an embedding is a list of numbers."""
    return all(isinstance(number, float) for number in reply.data["data"][0]["embedding"])


def is_between(first: Reply, second: Reply) -> bool:
    """Whether a completion is another one before a suffix, which is not part of it."""
    return first.text != second.text and not second.text.endswith("The end.")


def has_code(*codes: str) -> Shows:
    """Whether an error has one of these codes."""
    return lambda reply: reply.data["error"].get("code") in codes


CASES: tuple[Case, ...] = (
    chat("a question", {}, shows=is_text),
    chat(
        "a message `system`",
        {},
        says(("system", "Be brief."), ("user", QUESTION)),
        shows=reads_another,
    ),
    chat(
        "a message `developer`",
        {},
        says(("developer", "Be brief."), ("user", QUESTION)),
        shows=reads_another,
    ),
    chat(
        "earlier turns",
        {},
        says(("user", "Hello"), ("assistant", "Hi"), ("user", QUESTION)),
        shows=reads_another,
    ),
    chat(
        "content in parts",
        {},
        says(("user", [{"type": "text", "text": QUESTION}])),
        shows=is_the_same,
    ),
    chat("`stream`", {"stream": True}, shows=comes_in_pieces),
    chat(
        "`stream_options.include_usage`",
        {"stream": True, "stream_options": {"include_usage": True}},
        shows=tells_usage,
    ),
    chat("`n` 2", FREE | {"n": 2}, shows=are_two),
    chat("`n` 2 in a stream", FREE | {"n": 2, "stream": True}, shows=are_two),
    chat("`stop`, a string", {}, {"stop": Piece(1, 3)}, shows=is_cut),
    chat("`stop`, a list", {}, {"stop": ["never", Piece(1, 3)]}, shows=is_cut),
    chat("`max_tokens`", {"max_tokens": 5}, shows=has_five_tokens),
    Case(
        "`max_completion_tokens`",
        "chat",
        [says(("user", QUESTION)) | {"max_completion_tokens": 5}],
        has_five_tokens,
    ),
    chat(
        "`seed`",
        FREE | {"seed": 7},
        FREE | {"seed": 7},
        FREE | {"seed": 8},
        shows=repeats_with_its_seed,
    ),
    chat("`temperature` 0 without a seed", {"seed": None}, {"seed": None}, shows=is_the_same),
    chat("`top_p`", {}, {"temperature": 1, "top_p": 1e-6}, shows=is_the_same),
    chat(
        "`presence_penalty`",
        {"max_tokens": 64},
        {"max_tokens": 64, "presence_penalty": 2},
        shows=is_another,
    ),
    chat(
        "`frequency_penalty`",
        {"max_tokens": 64},
        {"max_tokens": 64, "frequency_penalty": 2},
        shows=is_another,
    ),
    chat("`logit_bias`", {}, {"logit_bias": {"40": 100}, "max_tokens": 6}, shows=is_one_token),
    chat("`logprobs`", {"logprobs": True}, shows=lists_tokens),
    chat("`top_logprobs`", {"logprobs": True, "top_logprobs": 2}, shows=lists_two_others),
    chat(
        "`response_format` `json_object`",
        says(("user", "Describe the sky in JSON."))
        | {"response_format": {"type": "json_object"}, "max_tokens": 200},
        shows=is_json_object,
    ),
    chat(
        "`response_format` `json_schema`",
        {"response_format": SCHEMA, "max_tokens": 60},
        shows=lambda reply: has_the_form(reply.text),
    ),
    chat(
        "a tool that must be called",
        {
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "report"}},
            "max_tokens": 60,
        },
        shows=calls_the_tool,
    ),
    completion("a bare prompt", {}, shows=is_text),
    completion(
        "a list of two prompts",
        {"prompt": [QUESTION, "Hello"]},
        shows=lambda reply: len(reply.texts) == 2,
    ),
    completion("a prompt in tokens", {"prompt": [40, 41, 42]}, shows=is_text),
    completion("a bare prompt, `stream`", {"stream": True}, shows=comes_in_pieces),
    completion("a bare prompt, `stop`", {}, {"stop": Piece(1, 3)}, shows=is_cut),
    completion("`echo`", {"echo": True}, shows=lambda reply: reply.text.startswith(QUESTION)),
    completion("`logprobs` 2", {"logprobs": 2}, shows=lists_completion_tokens),
    completion("`suffix`", {}, {"suffix": "The end."}, shows=is_between),
    Case("the list of models", "models", [{}], lambda reply: bool(reply.data["data"][0]["id"])),
    Case("one model", "model", [{}], lambda reply: reply.data["object"] == "model"),
    Case("an embedding", "embedding", [{}], is_vector),
    Case("the API Responses", "response", [{}], lambda reply: bool(reply.data["output"])),
    Case("GET /health", "GET /health", [{}]),
    Case("GET /metrics", "GET /metrics", [{}], lambda reply: "# TYPE" in reply.data),
    bad(
        "an unknown model",
        "chat",
        CHAT | {"model": "other"},
        NOT_FOUND,
        has_code("model_not_found"),
    ),
    bad("a value of another type", "chat", CHAT | {"temperature": "hot"}, BAD_REQUEST, anything),
    bad("a value out of range", "chat", CHAT | {"temperature": 3}, BAD_REQUEST, anything),
    bad("no `messages`", "POST /v1/chat/completions", GREEDY, BAD_REQUEST, anything),
    bad("an empty list of messages", "chat", CHAT | {"messages": []}, BAD_REQUEST, anything),
    bad("an unknown role", "chat", CHAT | says(("nobody", "Hello")), BAD_REQUEST, anything),
    bad(
        "more than the context holds",
        "chat",
        CHAT | says(("user", "word " * 40_000)),
        BAD_REQUEST,
        has_code("context_length_exceeded"),
    ),
    bad("an unknown route", "GET /v1/nothing", {}, NOT_FOUND, anything),
    bad("a wrong method", "DELETE /v1/chat/completions", {}, frozenset((404, 405)), anything),
    bad("broken JSON", "POST /v1/chat/completions", {"raw": '{"model":'}, BAD_REQUEST, anything),
    bad(
        "a body of 6 MB",
        "POST /v1/chat/completions",
        {"raw": json.dumps(CHAT | says(("user", "word " * 1_200_000)))},
        frozenset((400, 413)),
        anything,
    ),
    bad(
        "a wrong key",
        "chat",
        CHAT | {"extra_headers": {"Authorization": "Bearer no"}},
        frozenset((401,)),
        anything,
    ),
)


@dataclass(frozen=True)
class Server:
    """Where requests go.

    Attributes:
        name: In the table.
        url: With /v1.
        key: That it wants.
        model: That it serves.
    """

    name: str
    url: str
    key: str
    model: str

    @property
    def client(self) -> openai.OpenAI:
        """A client of it."""
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=SECONDS)


def known(name: str, url: str, key: str) -> Server:
    """A server that says what its model is called."""
    with Server(name, url, key, "").client as client:
        return Server(name, url, key, client.models.list().data[0].id)


def ask(server: Server, route: str, body: Body) -> Reply:
    """Send a body and wait for all of the reply."""
    try:
        method, _, path = route.partition(" ")
        if path:
            return ask_httpx(server, method, path, body)
        with server.client as client:
            return Reply(200, ask_client(client, route, {"model": server.model, **body}))
    except openai.APIStatusError as error:
        return read_response(error.status_code, error.response.text)
    except (openai.APIError, httpx.HTTPError) as error:
        return Reply(NO_ANSWER, str(error))


def ask_client(client: openai.OpenAI, route: str, body: dict[str, Any]) -> Any:
    """What the official client returns, as JSON."""
    match route:
        case "models":
            return client.models.list().to_dict()
        case "model":
            return client.models.retrieve(body["model"]).to_dict()
        case "embedding":
            found = client.embeddings.create(model=body["model"], input=QUESTION)
            return found.to_dict()
        case "response":
            model = body["model"]
            made = client.responses.create(model=model, input=QUESTION, max_output_tokens=24)
            return made.to_dict()
    creating = client.chat.completions if route == "chat" else client.completions
    created = creating.create(**body)
    if body.get("stream"):
        return [chunk.to_dict() for chunk in created]
    return created.to_dict()


def ask_httpx(server: Server, method: str, path: str, body: Body) -> Reply:
    """What the official client would not send."""
    content = body.get("raw") or json.dumps({"model": server.model, **body})
    response = httpx.request(
        method,
        server.url.removesuffix("/v1") + path,
        content=content if method == "POST" else None,
        headers={"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"},
        timeout=SECONDS,
    )
    return read_response(response.status_code, response.text)


def read_response(status: int, text: str) -> Reply:
    """A response whose body may be anything."""
    found = parsed(text)
    return Reply(status, text if found is None else found)


def judged(server: Server, case: Case) -> Verdict:
    """What a server makes of a request."""
    replies: list[Reply] = []
    for body in case.bodies:
        first = replies[0].text if replies else ""
        replies.append(ask(server, case.route, filled(body, first)))
        if replies[-1].status != 200:
            return verdict_on_error(case, replies[-1])
    if case.refused:
        return "ignored"
    try:
        if not all(has_documented_form(case.route, reply) for reply in replies):
            return "wrong"
        return "yes" if case.shows(*replies) else "ignored"
    except (LookupError, TypeError, AttributeError, ValueError):
        return "wrong"  # what must be looked at is not there


def filled(value: Any, first: str) -> Any:
    """A body with pieces of the first answer."""
    match value:
        case Piece(start, end):
            return first[start:end]
        case dict():
            return {name: filled(part, first) for name, part in value.items()}
        case list():
            return [filled(part, first) for part in value]
    return value


def verdict_on_error(case: Case, reply: Reply) -> Verdict:
    """What a reply is worth that is no success."""
    if not 400 <= reply.status < 500 or not reply.data:
        return "wrong"
    error = reply.data.get("error") if isinstance(reply.data, dict) else None
    has_words = isinstance(error, dict) and isinstance(error.get("message"), str)
    if reply.status in case.refused and has_words and case.shows(reply):
        return "yes"
    return "refused clearly"


def has_documented_form(route: str, reply: Reply) -> bool:
    """Whether a completion, or every chunk of it, has the keys that the API reference names."""
    if route not in ("chat", "completion"):
        return True
    is_stream = isinstance(reply.data, list)
    parts = reply.data if is_stream else [reply.data]
    kind = {
        ("chat", False): "chat.completion",
        ("chat", True): "chat.completion.chunk",
    }.get((route, is_stream), "text_completion")
    held = "text" if route == "completion" else "delta" if is_stream else "message"
    return (
        all(part["object"] == kind and part["id"] and part["created"] for part in parts)
        and all(held in choice for choice in reply.choices)
        and all(end in ENDS for end in reply.ends)
        and (is_stream or reply.used("prompt_tokens") > 0)
    )


@contextmanager
def serving(target: str, prompter: str | None) -> Iterator[Server]:
    """A server of this package, until the block ends."""
    command = [sys.executable, "-m", "alignpro_lite", "serve", "--port", "0"]
    command += ["--until-stdin-closes", "--device", "cpu", "--target", target]
    command += ["--prompter", prompter] if prompter else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        yield known("alignpro-lite", told["base_url"], told["token"])


def print_table(servers: Sequence[Server]) -> dict[str, Counter[Verdict]]:
    """Ask all of them everything, in turns; the verdicts on each, counted."""
    counts: dict[str, Counter[Verdict]] = {server.name: Counter() for server in servers}
    print("| request | " + " | ".join(counts) + " |")
    print("|---" * (len(servers) + 1) + "|")
    for case in CASES:
        verdicts = [judged(server, case) for server in servers]
        for server, verdict in zip(servers, verdicts, strict=True):
            counts[server.name][verdict] += 1
        print(f"| {case.name} | " + " | ".join(verdicts) + " |", flush=True)
    for name, count in counts.items():
        told = ", ".join(f"{verdict} {number}" for verdict, number in count.most_common())
        print(f"{name}: {told}", file=sys.stderr)
    return counts


def main() -> int:
    """Compare servers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--prompter", default=None)
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--key", default="none", help="of all of these")
    settings = parser.parse_args()
    with serving(settings.target, settings.prompter) as ours:
        places = [place.partition("=") for place in settings.url]
        others = [known(name, url, settings.key) for name, _, url in places]
        count = print_table([ours, *others])[ours.name]
    return int(count["ignored"] + count["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
