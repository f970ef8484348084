"""What can go wrong and who can fix it. Every message names the value, what was expected and the way out."""


class VigieError(Exception):
    """Base of every error that a person outside the code can fix. Its text is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ImageError(VigieError):
    """The picture cannot be used: whoever sent it can send another."""


class DataError(VigieError):
    """The folder of pictures, its layout or its masks are not what training or evaluation needs."""


class ModelLoadError(VigieError):
    """A model folder is incomplete, corrupt or not of a kind this version knows: whoever published it must mend it."""


class CalibrationError(VigieError):
    """There are too few held-out images for what was asked of them."""


class PolicyError(VigieError):
    """A policy is wrong or could never reject a part: whoever wrote the JSON must mend it."""


class RegistryError(VigieError):
    """The Hub or the local folder did not give what was asked. Subclasses tell the cause."""


class HubUnreachableError(RegistryError):
    """No answer from the Hub: try again, or use a revision that is already here."""


class RevisionNotFoundError(RegistryError):
    """The tag, branch or commit does not exist (any more)."""


class RepoNotFoundError(RegistryError):
    """The repo does not exist, or is private and the token does not open it."""


class RepoGatedError(RegistryError):
    """The repo exists, but its owner must grant access first."""


class StaleParentError(RegistryError):
    """Somebody else committed to the branch since it was read: fetch and try again."""


class DiskFullError(RegistryError):
    """No room left for a download or a save."""


class InspectionError(VigieError):
    """The inspector could not come to any report."""
