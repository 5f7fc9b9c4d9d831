"""A guest in 512 bytes: a coloured text screen with the VM's name, which echoes typed keys.

The bytes are assembled by hand, so that no assembler is needed. The BIOS loads them at 0x7C00 in
real mode and jumps there. Interrupts: 10h is the screen, 16h the keyboard.
"""

import enum

LOAD_ADDRESS = 0x7C00
SIZE = 512
SIGNATURE = b"\x55\xaa"
COLUMNS = 80
NAME_ROW = 12
ECHO_ROW = 16


class Colour(enum.IntEnum):
    """Background colours of VGA text mode. There are 7, because bit 3 makes the text blink."""

    BLUE = 1
    GREEN = 2
    CYAN = 3
    RED = 4
    MAGENTA = 5
    BROWN = 6
    GREY = 7

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue as QEMU shows them, 0 to 255 each."""
        if self is Colour.BROWN:
            return (170, 85, 0)
        return (170 * (self >> 2 & 1), 170 * (self >> 1 & 1), 170 * (self & 1))


def boot_sector(name: str, colour: Colour) -> bytes:
    text = name.encode("ascii")
    if not 0 < len(text) < COLUMNS:
        raise ValueError(f"the VM's name does not fit on one line: {name!r}")
    text_address = LOAD_ADDRESS + len(_code(text, colour, 0))
    image = _code(text, colour, text_address) + text
    return image.ljust(SIZE - len(SIGNATURE), b"\0") + SIGNATURE


def _code(text: bytes, colour: Colour, text_address: int) -> bytes:
    white_on_colour = bytes([colour << 4 | 0x0F])
    return b"".join(
        (
            b"\x31\xc0",  #            xor ax, ax
            b"\x8e\xd8",  #            mov ds, ax
            b"\x8e\xc0",  #            mov es, ax
            b"\xb8\x03\x00",  #        mov ax, 0003h   80x25 text mode
            b"\xcd\x10",  #            int 10h
            # A blinking cursor would change the screen without any typing.
            b"\xb4\x01",  #            mov ah, 01h     shape of the cursor:
            b"\xb9\x07\x26",  #        mov cx, 2607h   none
            b"\xcd\x10",  #            int 10h
            b"\xb8\x00\x06",  #        mov ax, 0600h   clear a window,
            b"\xb7" + white_on_colour,  # mov bh, ..   in this colour,
            b"\x31\xc9",  #            xor cx, cx      from row 0, column 0
            b"\xba\x4f\x18",  #        mov dx, 184Fh   to row 24, column 79
            b"\xcd\x10",  #            int 10h
            b"\xb8\x01\x13",  #        mov ax, 1301h   write a string,
            b"\xbb" + white_on_colour + b"\0",  # mov bx, ..   page 0, in this colour,
            b"\xb9" + _word(len(text)),  # mov cx, ..  of this length,
            b"\xba" + bytes([(COLUMNS - len(text)) // 2, NAME_ROW]),  # mov dx, ..  here,
            b"\xbd" + _word(text_address),  # mov bp, ..   from es:bp
            b"\xcd\x10",  #            int 10h
            b"\xb4\x02",  #            mov ah, 02h     move the cursor,
            b"\xb7\x00",  #            mov bh, 0       on page 0,
            b"\xba\x00" + bytes([ECHO_ROW]),  # mov dx, ..   here
            b"\xcd\x10",  #            int 10h
            b"\x31\xc0",  #            xor ax, ax      <- loop: wait for a key, into al
            b"\xcd\x16",  #            int 16h
            b"\xb4\x0e",  #            mov ah, 0Eh     teletype al,
            b"\x31\xdb",  #            xor bx, bx      on page 0
            b"\xcd\x10",  #            int 10h
            b"\xeb\xf4",  #            jmp loop        12 bytes back
        )
    )


def _word(number: int) -> bytes:
    return number.to_bytes(2, "little")
