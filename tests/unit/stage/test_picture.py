import pytest

from tests.stage.picture import Picture
from tests.stage.waiting import StageError


def test_the_share_of_a_colour() -> None:
    picture = Picture.from_ppm(b"P6\n2 2\n255\n" + b"\xaa\0\0" * 3 + b"\0\0\0")
    assert picture.colour_share((170, 0, 0)) == 0.75


def test_a_slightly_different_shade_counts() -> None:
    picture = Picture.from_ppm(b"P6 1 1 255\n" + bytes([165, 4, 0]))
    assert picture.colour_share((170, 0, 0)) == 1.0


def test_pixels_that_look_like_white_space_are_pixels() -> None:
    """The byte after the header ends it, even where the picture starts with a newline's colour."""
    picture = Picture.from_ppm(b"P6\n1 1\n255\n\n\n\n")
    assert picture.colour_share((10, 10, 10)) == 1.0


def test_other_formats_are_refused() -> None:
    with pytest.raises(StageError, match="PPM"):
        Picture.from_ppm(b"\x89PNG\r\n")
