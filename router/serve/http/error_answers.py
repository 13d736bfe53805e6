"""Every error in the shape that OpenAI's clients read, whoever raises it."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from m3router.data.errors import M3RouterError
from m3router.router.serve.errors import ApiError, where
from m3router.router.serve.http.chat import api_error, failed
from m3router.router.serve.http.request_ids import HEADER, request_id

logger = logging.getLogger(__name__)


def tell_errors(app: FastAPI) -> None:
    """Let an application answer errors so."""

    @app.exception_handler(ApiError)
    async def told(http: Request, error: ApiError) -> JSONResponse:
        if error.status == 500:
            error = failed(error.headers.get(HEADER.decode()) or request_id())
        return _answer(error)

    @app.exception_handler(M3RouterError)
    async def known(http: Request, error: M3RouterError) -> JSONResponse:
        return await told(http, api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Of paths alone: a body is read by this project itself. What came is not repeated.
        place = str(error.errors()[0]["loc"][-1])
        return _answer(ApiError(400, f"{place}: It cannot be read.", param=place))

    @app.exception_handler(HTTPException)
    async def refused(http: Request, error: HTTPException) -> JSONResponse:
        message, code = str(error.detail), None
        if error.status_code == 404:
            message = "There is no such address here; /openapi.json lists what there is."
            code = "unknown_url"
        elif error.status_code == 405:
            taken = (error.headers or {}).get("Allow", "another method")
            message = f"This address takes {taken}, not {http.method[:20]}."
            code = "method_not_allowed"
        return _answer(ApiError(error.status_code, message, code=code, headers=error.headers))

    @app.exception_handler(Exception)
    async def unforeseen(http: Request, error: Exception) -> JSONResponse:
        # It goes on to the guard, which does not know the id.
        id = request_id()
        logger.error("%s failed: %s", id, where(error))
        return _answer(failed(id))


def _answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)
