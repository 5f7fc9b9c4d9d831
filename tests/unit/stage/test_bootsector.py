import pytest

from tests.stage.bootsector import SIZE, Colour, boot_sector


@pytest.mark.parametrize("name", ["a", "vm1", "n" * 79])
def test_a_bios_accepts_it(name: str) -> None:
    image = boot_sector(name, Colour.BLUE)
    assert len(image) == SIZE
    assert image.endswith(b"\x55\xaa")


def test_the_name_lies_where_the_code_points() -> None:
    image = boot_sector("vm1", Colour.GREEN)
    move_to_bp = image.index(b"\xbd")
    address = int.from_bytes(image[move_to_bp + 1 : move_to_bp + 3], "little")
    assert image[address - 0x7C00 :].startswith(b"vm1\0")


@pytest.mark.parametrize("name", ["", "n" * 80])
def test_a_name_that_does_not_fit_a_line_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        boot_sector(name, Colour.BLUE)


def test_no_two_colours_look_alike() -> None:
    assert len({colour.rgb for colour in Colour}) == len(Colour)


def test_ports_are_joined_by_jumps_that_stay_within_the_loop() -> None:
    image = boot_sector("vm1", Colour.BLUE, joins_ports=True)
    assert len(image) == SIZE
    begin = image.index(b"\xba\xfd\x03\xec\xa8\x01\x74")  # is a byte at the first port?
    end = image.index(b"\xeb", begin)
    assert end + 2 + image[end + 1] - 256 == begin
    past_first = begin + 8 + image[begin + 7]
    assert image[past_first:].startswith(b"\xba\xfd\x02\xec\xa8\x01\x74")
    assert past_first + 8 + image[past_first + 7] == end


def test_the_last_jump_goes_back_to_waiting_for_a_key() -> None:
    image = boot_sector("vm1", Colour.BLUE)
    jump = image.index(b"\xeb")
    back = image[jump + 1] - 256
    assert image[jump + 2 + back :].startswith(b"\x31\xc0\xcd\x16")
