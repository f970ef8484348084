"""What huggingface_hub, HTTP and the disk raise -> one error that says what a person can do about it."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import errors
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, whichever it uses

from anomaly.errors import (
    DiskFullError,
    HubUnreachableError,
    ModelLoadError,
    RegistryError,
    RepoGatedError,
    RepoNotFoundError,
    RevisionNotFoundError,
    StaleParentError,
    VigieError,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, limit on the size of a file

# The first that fits counts, so a class comes before its bases.
_MEANING: tuple[tuple[type[Exception], type[VigieError], str], ...] = (
    (
        errors.GatedRepoError,
        RepoGatedError,
        "its owner must grant access first; ask on its Hub page, then set HF_TOKEN to a token of that account",
    ),
    (
        errors.RepositoryNotFoundError,
        RepoNotFoundError,
        "no such repo, or it is private and HF_TOKEN is missing or may not read it",
    ),
    (errors.RevisionNotFoundError, RevisionNotFoundError, "no such revision (any more); list them with `revisions`"),
    (errors.RemoteEntryNotFoundError, ModelLoadError, "a file is missing from the repo"),
    (errors.OfflineModeIsEnabled, HubUnreachableError, "it is not here, and HF_HUB_OFFLINE forbids to ask the Hub"),
    (errors.LocalEntryNotFoundError, HubUnreachableError, "the Hub does not answer, try again later"),
    (httpx.LocalProtocolError, RegistryError, "HF_TOKEN holds characters that no token has; set it anew"),
    (UnicodeEncodeError, RegistryError, "HF_TOKEN or a name holds characters outside ASCII; set it anew"),
    (httpx.UnsupportedProtocol, RegistryError, "HF_ENDPOINT is not an address (https://...)"),
    (httpx.InvalidURL, RegistryError, "HF_ENDPOINT is not an address (https://...)"),
    (
        httpx.TransportError,
        HubUnreachableError,
        "the Hub does not answer, try again later; a full commit that was downloaded before needs no Hub",
    ),
    (json.JSONDecodeError, HubUnreachableError, "what answers is not the Hub but perhaps a proxy's login page"),
)
_HOLDS_THE_TOKEN = (httpx.LocalProtocolError, UnicodeEncodeError)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Goes around every call that may reach the Hub or write to the disk.

    Args:
        what: repo@revision, which the message begins with.

    Raises:
        RegistryError: of the kind that tells the cause. Neither a token nor a signed address is in its text.
        ModelLoadError: a file is missing from the repo.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, httpx.InvalidURL) as error:
        if (meaning := _meaning(what, error)) is None:
            raise
        raise meaning from None if isinstance(error, _HOLDS_THE_TOKEN) else error


def _meaning(what: str, error: Exception) -> VigieError | None:
    for kind, ours, text in _MEANING:
        if isinstance(error, kind):
            return ours(f"{what}: {text}")
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(what, error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DiskFullError(f"{what}: no room left ({error.strerror}); free some or set HF_HUB_CACHE to another disk")
    if isinstance(error, RuntimeError):
        if "client has been closed" not in str(error):  # huggingface_hub does so when another thread found no Hub
            return None
        return HubUnreachableError(f"{what}: the connection to the Hub was lost, try again")
    return RegistryError(f"{what}: {error}")  # the disk's other complaints, huggingface_hub's about names and cards


def _of_status(what: str, error: errors.HfHubHTTPError) -> RegistryError:
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase  # not its text, which holds the address
    if status == 412:
        return StaleParentError(f"{what}: somebody else committed in the meantime; look at it and push again")
    if status in (408, 429) or status >= 500:
        return HubUnreachableError(f"{what}: the Hub answers {status} ({said}), try again later")
    if status == 401:
        return RegistryError(f"{what}: the Hub does not know who asks ({said}); set HF_TOKEN to a valid token")
    if status == 403:
        return RegistryError(f"{what}: HF_TOKEN may not do this ({said})")
    return RegistryError(f"{what}: the Hub refuses with {status} ({said})")
