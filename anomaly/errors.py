"""What can go wrong and who can fix it. Every message names the value, what was expected and the way out.

`code` is what a program acts on: in the app's API it is the title of the error. A code never changes its meaning; the
sentence of a class is the line on it in docs/API.md, and the message may say anything.
"""

from typing import ClassVar


class VigieError(Exception):
    """What was asked for cannot be done as it stands; the message says why."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ImageError(VigieError):
    """The picture cannot be used: whoever sent it can send another."""

    code = "image_unreadable"


class ImageTooLargeError(ImageError):
    """The picture has more bytes or pixels than this app reads: send a smaller one; the message has the limits."""

    code = "image_too_large"


class ImageTooSmallError(ImageError):
    """The picture has fewer pixels than anything can be seen in; the message has the limits."""

    code = "image_too_small"


class NoPictureError(ImageError):
    """There is no picture in the request."""

    code = "no_picture"


class NotUploadedError(ImageError):
    """The picture does not lie among the uploads of this app (any more): upload it, then ask."""

    code = "not_uploaded"


class DataError(VigieError):
    """The pictures, their layout, masks or labels are not what was asked for, or no labels are collected here."""

    code = "data_unusable"


class ModelLoadError(VigieError):
    """A model folder is incomplete, corrupt or not of a kind this version knows: whoever published it must mend it."""

    code = "model_broken"


class CalibrationError(VigieError):
    """There are too few held-out images for what was asked of them."""

    code = "too_few_pictures"


class PolicyError(VigieError):
    """A policy is wrong or could never reject a part: whoever wrote the JSON must mend it."""

    code = "policy_broken"


class UnknownPolicyError(PolicyError):
    """The inspector has no policy of that name; the message names those it has, /policies lists them."""

    code = "unknown_policy"


class RegistryError(VigieError):
    """The Hub or the local folder refuses: whoever runs the app must look at its token, its rights or its folder."""

    code = "hub_refused"


class UnknownInspectorError(RegistryError):
    """The app does not serve that inspector; the message names those it serves, /health lists them."""

    code = "unknown_inspector"


class HubUnreachableError(RegistryError):
    """No answer from the Hub: try again, or use a revision that is already here."""

    code = "hub_unreachable"


class RevisionNotFoundError(RegistryError):
    """The tag, branch or commit does not exist (any more); /revisions lists those that do."""

    code = "unknown_revision"


class RepoNotFoundError(RegistryError):
    """The repo does not exist, or is private and the token does not open it."""

    code = "repo_not_found"


class RepoGatedError(RegistryError):
    """The repo exists, but its owner must grant access first."""

    code = "repo_gated"


class StaleParentError(RegistryError):
    """Somebody else committed to the branch since it was read: fetch and try again."""

    code = "stale_parent"


class DiskFullError(RegistryError):
    """No room left for a download or a save."""

    code = "disk_full"


class InspectionError(VigieError):
    """The inspector could not come to any report."""

    code = "inspection_failed"


INTERNAL = "internal_error"  # the code of what is no VigieError: a mistake of this software, told in its log


def codes() -> dict[str, str]:
    """Every code of an error that a person outside the code can fix, with what it means."""
    kinds = [VigieError]
    for kind in kinds:
        kinds += kind.__subclasses__()  # of subclasses, too: the list grows while it is walked
    return {kind.code: (kind.__doc__ or "").strip() for kind in kinds}
