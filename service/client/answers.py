"""Answers of a service as they are meant: read, or raised as `ServiceError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import, so that the functions that need it do

LOST_CONNECTION_SECONDS = 0.2
"""How long to wait before a request whose connection was lost is sent again."""

Schema = TypeVar("Schema", bound=BaseModel)


class ServiceError(OSError):
    """A service that cannot be reached, or an answer that is an error.

    Args:
        detail: what is wrong and what to do.
        status: the HTTP status; None if there was no answer.
        type: the kind of problem (RFC 9457), such as urn:problem-type:tandem:unknown-model; None if none was named.
        retry_after: seconds after which the service says that it is worth trying again.
    """

    def __init__(
        self, detail: str, *, status: int | None = None, type: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.type = type
        self.retry_after = retry_after


def read(schema: type[Schema], response: httpx.Response) -> Schema:
    """Reads a JSON answer.

    Raises:
        ServiceError: it is not what this service answers.
    """
    try:
        return schema.model_validate_json(response.content)
    except ValidationError:
        raise foreign(response) from None


def check(response: httpx.Response) -> httpx.Response:
    """The answer itself, if it is no error.

    Raises:
        ServiceError: it is one.
    """
    if response.is_success:
        return response
    try:
        error = problem_error(response.json(), status=response.status_code, retry_after=_retry_after(response))
    except (ValueError, KeyError, TypeError):
        raise foreign(response) from None
    raise error


def problem_error(problem: Any, *, status: int, retry_after: float | None = None) -> ServiceError:
    """A problem of RFC 9457 as an error.

    Raises:
        KeyError, TypeError: it is none.
    """
    detail, kind = str(problem["detail"]), str(problem["type"])
    return ServiceError(f"{detail} (status {status})", status=status, type=kind, retry_after=retry_after)


def _retry_after(response: httpx.Response) -> float | None:
    # Only seconds: the service never answers a date.
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else None


def foreign(response: httpx.Response) -> ServiceError:
    """The error of an answer that is none of this service's."""
    url = response.request.url.copy_with(query=None)
    return ServiceError(
        f"{url} answered {response.status_code} {response.reason_phrase}, not as a service of this version does; "
        "check the URL",
        status=response.status_code,
        retry_after=_retry_after(response),
    )


def unreachable(url: httpx.URL, error: httpx.RequestError) -> ServiceError:
    """The error of a request that got no answer."""
    import httpx

    # Where a connection was lost, it is worth trying again; not where there was none.
    lost = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))
    again = lost and not isinstance(error, httpx.ConnectError)
    return ServiceError(
        f"no answer from {url}: {str(error) or type(error).__name__}; is a service running there?",
        retry_after=LOST_CONNECTION_SECONDS if again else None,
    )
