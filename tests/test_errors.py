"""What a user reads of an error, wherever it was raised and however it came wrapped."""

import copy
import errno
import os

import pytest
from pyarrow.fs import LocalFileSystem

from discl_ray.errors import (
    NO_ANSWER,
    TO_READ,
    ConfigError,
    ModelError,
    StorageError,
    is_no_answer,
    reported,
    trouble_of_store,
    unwritable,
)


class Wrapped(Exception):
    """As Ray's: the error of a worker is its `cause`, its words are the worker's traceback."""

    def __init__(self, text, cause=None):
        super().__init__(text)
        self.cause = cause


def wrapped_from(error):
    try:
        raise ValueError("in between") from error
    except ValueError as outer:
        return outer


def test_an_error_of_ours_is_found_behind_what_wraps_it_and_keeps_its_exit_code():
    ours = ConfigError("two problems\n  a\n  b")
    for error in (
        ours,
        Wrapped("Traceback ...", ours),
        wrapped_from(ours),
        Wrapped("x", wrapped_from(ours)),
    ):
        assert reported(error) is ours
    text = (
        "ray::MapWorker()\n  File x\ndiscl_ray.errors.ModelError: scorer.model = 'x': cut short\n\n"
        "The above exception was\nlast"
    )
    found = reported(Wrapped(text))
    assert (type(found), str(found)) == (ModelError, "scorer.model = 'x': cut short")


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE]
)
def test_a_disk_that_cannot_be_written_is_said_with_its_path(number):
    error = OSError(number, os.strerror(number), "/runs/file")
    text = (
        f"Traceback\nOSError: [Errno {number}] {os.strerror(number)}: '/runs/file'\n\n"
        "ray.exceptions.UserCodeException: UDF failed"
    )
    if type(error) is not OSError:
        text = text.replace("OSError", type(error).__name__)
    for case in (error, wrapped_from(error), Wrapped(text)):
        found = reported(case)
        assert isinstance(found, StorageError)
        assert str(found).startswith(f"/runs/file: {os.strerror(number)}; ")
        assert found.exit_code == 1
    assert isinstance(
        reported(RuntimeError("IoError(Os { code: 28, message: No space left on device })")),
        StorageError,
    )


def test_pyarrows_error_names_its_path_wherever_it_was_raised(tmp_path):
    file = tmp_path / "it's a file"
    file.touch()
    with pytest.raises(OSError, match="local file") as caught:
        LocalFileSystem().open_input_file(str(file / "part.parquet"))
    error = caught.value
    text = f"Traceback\n{type(error).__name__}: {error}\n"
    for case in (error, wrapped_from(error), Wrapped(text)):
        assert str(reported(case)).startswith(f"{file}/part.parquet: Not a directory; ")


def test_a_folder_that_may_have_been_read_is_not_said_to_be_written():
    text = "[Errno 13] Cannot list directory '/data/x'. Detail: [errno 13] Permission denied"
    for case in (PermissionError(errno.EACCES, text[11:]), Wrapped(f"PermissionError: {text}")):
        words = "/data/x: Permission denied; change its permissions, or name another folder"
        assert str(reported(case)) == words


def test_a_fault_of_the_program_is_not_explained_away():
    assert reported(KeyError("x")) is None
    assert reported(Wrapped("ray::f()\nKeyError: 'No space for this'")) is None
    assert reported(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None


def test_it_travels_between_processes():
    error = unwritable("/runs/x", OSError(errno.ENOSPC, "No space left on device"))
    assert str(copy.copy(error)) == str(error)  # by what pickles it
    assert "run.root" in str(error)


def test_that_ray_itself_has_ended_is_one_sentence():
    class RayLike(Exception):
        pass

    RayLike.__module__ = "ray.exceptions"
    text = "The actor died.\n\tpid: 1\nWorker exit detail: Owner's node has crashed."
    found = reported(RayLike(text))
    assert found is not None
    assert "(Worker exit detail: Owner's node has crashed)" in str(found)
    assert "the same command goes on" in str(found)
    assert reported(RayLike("The actor died of its own fault")) is None
    assert reported(RuntimeError(text)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AWS Error NETWORK_CONNECTION during HeadObject operation", "; ".join(NO_ANSWER)),
        (
            "Generic S3 error: Error performing GET https://s3.eu-west-1.amazonaws.com/b?x in 2 s",
            "the server https://s3.eu-west-1.amazonaws.com fails or does not answer; "
            "go on when it does",
        ),
        (
            "Generic S3 error: Error performing GET https://h:9000/b?x in 2 s",
            "the server https://h:9000 fails or does not answer; go on when it does; "
            "if it speaks http, set AWS_ENDPOINT_URL=http://h:9000",
        ),
    ],
)
def test_a_server_that_does_not_answer_is_named_where_that_is_known(monkeypatch, text, said):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert "; ".join(trouble_of_store(text)) == said
    assert is_no_answer(text)


def test_credentials_need_what_is_done_with_them():
    text = "AWS Error ACCESS_DENIED during HeadObject operation"
    assert trouble_of_store(text)[1].startswith("let them list, read, write and delete there")
    assert trouble_of_store(text, TO_READ)[1].startswith("let them list and read there")
    assert not is_no_answer(text)
    assert trouble_of_store("no error of a store") is None
