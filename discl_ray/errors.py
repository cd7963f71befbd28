"""Errors that a user can fix.

    DisclError
    |- ConfigError     the configuration: every problem at once, nothing started (exit code 2)
    |- SetupError      the machine: versions, permissions, resources, a run in use (exit code 2)
    |- ModelError      a model folder that cannot be used (exit code 2)
    |- DataError       a data set or an image that cannot be used
    |    `- ImageError   one image; becomes a row with a reason and never ends a job
    |- IntegrityError  files that are missing or damaged, or contradict each other
    |    `- UnreadableError  a file that cannot be read for now; it may be intact
    `- StorageError    a folder that cannot be written: full, read-only, unreachable

Messages name the key or file, the value, what is allowed and what to do.
"""

from __future__ import annotations

import errno
import os
import re
from urllib.parse import urlsplit

from discl_ray.process.masking import masked


class DisclError(Exception):
    """Base of all errors shown to users; the message is the whole report, without passwords."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(masked(str(message)))


class ConfigError(DisclError):
    """One or more configuration values are wrong; the message lists all of them."""

    exit_code = 2


class SetupError(DisclError):
    """The machine or the run directory cannot be used for the job."""

    exit_code = 2


class ModelError(DisclError):
    """A model folder lacks a part, holds no safetensors, or does not fit."""

    exit_code = 2


class DataError(DisclError):
    """A data set cannot be read as configured."""

    exit_code = 2


class ImageError(DataError):
    """One image cannot be decoded; `reason` is the word that goes into its row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class IntegrityError(DisclError):
    """A file of a run is missing or damaged, or contradicts another one."""


class UnreadableError(IntegrityError):
    """A file cannot be read for now; nothing is known about its content."""


class StorageError(DisclError):
    """Results cannot be written; what is committed stays."""


_ROOM = "make room there, or name a folder on another disk"
_RIGHTS = "name a folder you may write"
_AWAY = "its disk or server does not answer as it should; mend that, or name another folder"
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: "a file stands where a folder should be; move it, or name another folder",
    errno.EIO: _AWAY,
    errno.ESTALE: _AWAY,
    errno.ENOTCONN: _AWAY,
    errno.ETIMEDOUT: _AWAY,
    errno.ENODEV: _AWAY,
    errno.ENXIO: _AWAY,
    errno.EHOSTDOWN: _AWAY,
    errno.EHOSTUNREACH: _AWAY,
    errno.ENOTSUP: "name a bucket on a server that has them",
    errno.EMFILE: "too many files are open at once; raise the limit: ulimit -n 65536",
    errno.ENFILE: "too many files are open on this machine",
}
"""By error number of the operating system: what to do."""


NO_BUCKET = ("there is no such bucket", "create the bucket, or correct its name")
NO_ANSWER = ("the server fails or does not answer", "go on when it does")
_KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_OBJECT_STORE = (
    ("NO_?SUCH_?BUCKET|Bucket '.*' not found", *NO_BUCKET),
    (
        r"Expired|RequestTimeTooSkewed|\(HTTP status 400\) during HeadObject",
        "the credentials have expired",
        f"renew {_KEYS}",
    ),
    (
        "INVALID_?ACCESS_?KEY|SIGNATURE_?DOES_?NOT_?MATCH|InvalidToken|Unauthenticated"
        r"|\(HTTP status 401\)|401 Unauthorized|169\.254\.|credentials",
        "the server does not accept the credentials, or there are none",
        f"set {_KEYS}, or give the machine a role",
    ),
    (
        r"ACCESS_?DENIED|403 Forbidden|\(HTTP status 403\)|Permission denied",
        "these credentials are not allowed to",
        "let them {needs} there, or set others",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|\(HTTP status 301\)|301 Moved",
        "the bucket is in another region",
        "set AWS_REGION, or ?region= at the end of the URI",
    ),
    ("AWS Error|google::cloud|Generic (S3|GCS) error|Error performing", *NO_ANSWER),
)
"""Words of an object store's errors, as pyarrow and obstore cite them -> what they mean, and what
to do. The first that match."""


TO_READ = "list and read"
TO_WRITE = "list, read, write and delete"


def trouble_of_store(text: str, needs: str = TO_WRITE) -> tuple[str, str] | None:
    """What an object store's error means, and what to do; None if it comes from somewhere else.

    `needs` is what credentials must be allowed to do there.
    """
    if not re.search(_OBJECT_STORE[-1][0], text):
        return None
    for words, why, remedy in _OBJECT_STORE:
        if re.search(words, text, re.IGNORECASE):
            if (why, remedy) == NO_ANSWER:
                return _no_answer(text)
            return why, remedy.format(needs=needs)
    return None


def is_no_answer(text: str) -> bool:
    """Whether an error says that an object store fails or does not answer."""
    trouble = trouble_of_store(text)
    return trouble is not None and trouble[1].startswith(NO_ANSWER[1])


def _no_answer(text: str) -> tuple[str, str]:
    """NO_ANSWER with the server's address, where the error cites it."""
    why, remedy = NO_ANSWER
    cited = re.search(r"https?://[^/\s]+", text)
    if cited is None:
        return NO_ANSWER
    scheme, host = urlsplit(cited[0])[:2]
    why = why.replace("the server", f"the server {cited[0]}")
    if "S3" not in text or host.endswith(".amazonaws.com"):
        return why, remedy
    other = "http" if scheme == "https" else "https"
    hint = f"if it speaks {other}, set AWS_ENDPOINT_URL={other}://{host}"
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name, "").rstrip("/") == host:
            hint = f"{name} names no scheme, so {scheme} is used; {hint}"
    return why, f"{remedy}; {hint}"


def unwritable(path: str, error: OSError, key: str = "run.root") -> StorageError:
    """The error for a file that cannot be written, in the folder that `key` configures."""
    trouble = trouble_of_store(str(error))
    if trouble is not None:
        why, todo = trouble
        return StorageError(f"{path}: cannot be written ({why}); {todo} ({key})")
    text = error.strerror or " ".join(str(error).split())[:200]
    remedy = REMEDIES.get(error.errno or 0, "name a folder you may write")
    return StorageError(f"{path}: cannot be written ({text}); {remedy} ({key})")


def reported(error: BaseException) -> DisclError | None:
    """What to show a user of any error; None if it is a bug.

    Ray wraps the errors of workers, often as text alone: then the last lines are searched, which
    begin with the error's class.
    """
    seen: BaseException | None = error
    while seen is not None:
        within = getattr(seen, "cause", None)  # Ray's wrapper looks like what it wraps
        if within is None and isinstance(seen, DisclError):
            return seen
        if within is None and isinstance(seen, OSError) and seen.errno in REMEDIES:
            return _of_system(seen.errno, seen.filename or _path_in(str(seen)))
        if within is None and isinstance(seen, OSError) and trouble_of_store(str(seen)):
            return _of_object_store(str(seen))
        seen = within if isinstance(within, BaseException) else seen.__cause__
    return _in_text(str(error)) or _of_ray(error)


_RAY_IS_GONE = re.compile(r"[^.\n]*\b(?:node has (?:crashed|died)|raylet)\b[^.\n]*", re.IGNORECASE)
"""The sentence in which Ray says that it has lost its own processes on a machine."""


def _of_ray(error: BaseException) -> DisclError | None:
    """The error for Ray itself having ended; None if it is another of Ray's errors."""
    if not type(error).__module__.startswith("ray."):
        return None
    said = _RAY_IS_GONE.search(str(error))
    if said is None:
        return None
    why = " ".join(said[0].split())
    return DisclError(
        f"Ray's own processes on a machine have ended ({why}): memory may have run out there, "
        "which `dmesg` tells; what is committed stays, and the same command goes on"
    )


def _of_system(number: int, path: str | None) -> StorageError:
    remedy = REMEDIES[number]
    if number in (errno.EACCES, errno.EPERM):  # an error does not say: it may have been read
        remedy = "change its permissions, or name another folder"
    return StorageError(f"{path or 'a file'}: {os.strerror(number)}; {remedy}")


def _path_in(text: str) -> str | None:
    """The path that the operating system's error names, in Python's words or in pyarrow's:

    `[Errno 13] Permission denied: '/a'`, `[Errno 13] Failed to open local file '/a'. Detail: …`
    """
    quoted = re.search(r"'(.*)'(?=$|\. Detail:)", text)
    return quoted[1] if quoted else None


def _of_object_store(text: str) -> StorageError | None:
    """The error for what an object store said while nobody expected it to; None for others."""
    trouble = trouble_of_store(text)
    if trouble is None:
        return None
    why, remedy = trouble
    said = " ".join(text.split())[:200]
    return StorageError(f"{why}; {remedy} (run.root or data.root; {said})")


def _in_text(text: str) -> DisclError | None:
    """The last DisclError or error of the operating system in the text of a traceback."""
    for line in reversed(text.splitlines()):
        if ours := re.match(r"discl_ray\.errors\.(\w+): (.*)", line):
            return globals().get(ours[1], DisclError)(ours[2])
        if line.startswith("OSError: "):
            store = _of_object_store(line)
            if store is not None:
                return store
        system = re.match(r"\w*Error: \[[Ee]rrno (\d+)\]", line)
        if system and int(system[1]) in REMEDIES:
            return _of_system(int(system[1]), _path_in(line))
    if re.search("No space left on device|StorageFull|OutOfDiskError", text):
        return _of_system(errno.ENOSPC, None)
    return None
