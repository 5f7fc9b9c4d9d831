"""The system's words for an error, as they stand in our messages."""

import errno
import os

import pytest

from spicetunnel.common.errors import os_reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), "no such file or directory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/secret"), "no such file"),
        (TimeoutError("timed out"), "timed out"),  # a socket's: without a number
        (OSError(), "unknown error"),
    ],
)
def test_words_of_an_os_error(error: OSError, words: str) -> None:
    assert os_reason(error) == words
