"""The application: which route is answered by what."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from alignpro_lite.aligned import AlignedModel
from alignpro_lite.errors import AlignProError
from alignpro_lite.serve.admission import Admission, Limits
from alignpro_lite.serve.answering import Answerer
from alignpro_lite.serve.body import MOST_CHOICES
from alignpro_lite.serve.completions import Completions, ServedModel
from alignpro_lite.serve.exchange import LimitedRoute
from alignpro_lite.serve.guarding import AccessGuard, Rules
from alignpro_lite.serve.metrics import ServerMetrics
from alignpro_lite.serve.page import page_route
from alignpro_lite.serve.problems import HttpProblem
from alignpro_lite.serve.upstream import Elsewhere, Forwarder, Rewriter

_REWRITE = "/v1/alignpro/rewrite"
_FORWARDED = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def model_app(model: AlignedModel, served: ServedModel, limits: Limits, rules: Rules) -> ASGIApp:
    """An application whose answers come from the models of this process.

    Args:
        model: The caller closes it after the application.
        served: What it is called, and its usual settings.
        limits: What the application takes on.
        rules: Whom it answers.
    """
    admission = Admission(limits)
    metrics = ServerMetrics(admission)
    answerer = Answerer(model, limits.parallel * MOST_CHOICES)
    handlers = Completions(served, answerer, admission, metrics)
    endpoints = {
        "/v1/chat/completions": handlers.chat,
        "/v1/completions": handlers.complete,
        _REWRITE: handlers.rewrite,
    }
    routes = [
        Route(path, LimitedRoute(path, handler, limits, metrics), methods=["POST"])
        for path, handler in endpoints.items()
    ]
    about = {"model": served.name, "rewards": model.reward is not None}
    routes += [*_model_routes(served), *_common_routes(about, metrics, lambda: model.failure)]

    async def close() -> None:
        answerer.close()

    return _guarded(routes, metrics, rules, close)


def upstream_app(elsewhere: Elsewhere, rewriter: Rewriter, limits: Limits, rules: Rules) -> ASGIApp:
    """An application that rewrites prompts and lets another server answer them.

    Args:
        elsewhere: The other server.
        rewriter: The caller closes its prompter after the application.
        limits: What the application takes on; the other server has limits of its own.
        rules: Whom it answers.
    """
    admission = Admission(limits)
    metrics = ServerMetrics(admission)
    handlers = Forwarder(elsewhere, rewriter, admission, metrics)
    posted = {"/v1/chat/completions": handlers.chat, _REWRITE: handlers.rewrite}
    routes = [
        Route(path, LimitedRoute(path, handler, limits, metrics), methods=["POST"])
        for path, handler in posted.items()
    ]
    other = LimitedRoute("/v1", handlers.other, limits, metrics)
    routes.append(Route("/v1/{path:path}", other, methods=_FORWARDED))
    about = {"upstream": elsewhere.url}
    common = _common_routes(about, metrics, lambda: rewriter.failure)
    return _guarded([*routes, *common], metrics, rules, handlers.close)


def _guarded(
    routes: Sequence[Route],
    metrics: ServerMetrics,
    rules: Rules,
    close: Callable[[], Awaitable[None]],
) -> ASGIApp:
    """An application of routes, with its errors in OpenAI's form, behind the rules."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await close()

    inner = Starlette(
        routes=routes, exception_handlers={HTTPException: _no_route}, lifespan=lifespan
    )
    app: ASGIApp = AccessGuard(
        inner, rules, lambda status: metrics.finished("refused", status, 0.0)
    )
    if not rules.origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=sorted(rules.origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )


def _common_routes(
    about: Mapping[str, Any],
    metrics: ServerMetrics,
    find_failure: Callable[[], AlignProError | None],
) -> list[Route]:
    """The page, and what programs look at: /health and /metrics."""

    async def health(request: Request) -> JSONResponse:
        failure = find_failure()
        if failure is None:
            return JSONResponse({"status": "ok", **about})
        problem = HttpProblem(503, str(failure), code="engine_failed")
        return JSONResponse({"status": "failed", **about, **problem.body()}, problem.status)

    async def tell(request: Request) -> PlainTextResponse:
        return PlainTextResponse(metrics.text(), media_type=_METRICS_TYPE)

    return [page_route(), Route("/health", health), Route("/metrics", tell)]


def _model_routes(served: ServedModel) -> list[Route]:
    started = int(time.time())

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "alignpro-lite"}

    async def every(request: Request) -> JSONResponse:
        names = (served.name, *served.aliases)
        return JSONResponse({"object": "list", "data": [described(name) for name in names]})

    async def single(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        try:
            served.require(name)
        except HttpProblem as problem:
            return JSONResponse(problem.body(), problem.status)
        return JSONResponse(described(name))

    return [Route("/v1/models", every), Route("/v1/models/{name:path}", single)]


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    """What the router refuses: an unknown path, or another method."""
    assert isinstance(error, HTTPException)
    found = f"{request.method} {request.url.path}"
    problem = HttpProblem(error.status_code, f"{found}: {error.detail}.")
    return JSONResponse(problem.body(), problem.status, headers=error.headers)
