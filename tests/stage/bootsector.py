"""A guest in 512 bytes: a coloured text screen with the VM's name. It echoes typed keys, or joins
its two serial ports.

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


def boot_sector(name: str, colour: Colour, *, joins_ports: bool = False) -> bytes:
    """`joins_ports`: what one serial port gets, the other one sends. Keys are not echoed then."""
    text = name.encode("ascii")
    if not 0 < len(text) < COLUMNS:
        raise ValueError(f"the VM's name does not fit on one line: {name!r}")
    then = _join_ports() if joins_ports else ECHO_KEYS
    text_address = LOAD_ADDRESS + len(_paint(text, colour, 0) + then)
    image = _paint(text, colour, text_address) + then + text
    return image.ljust(SIZE - len(SIGNATURE), b"\0") + SIGNATURE


#: Loops for ever.
ECHO_KEYS = b"".join(
    (
        b"\x31\xc0",  #            xor ax, ax      <- loop: wait for a key, into al
        b"\xcd\x16",  #            int 16h
        b"\xb4\x0e",  #            mov ah, 0Eh     teletype al,
        b"\x31\xdb",  #            xor bx, bx      on page 0
        b"\xcd\x10",  #            int 10h
        b"\xeb\xf4",  #            jmp loop        12 bytes back
    )
)

#: Addresses of serial ports: data. Five bytes on is the state: bit 0 is "a byte is here", bit 5 is
#: "one may be sent".
COM1, COM2 = 0x3F8, 0x2F8


def _join_ports() -> bytes:
    """Loops for ever."""
    both = _pass_on(COM1, COM2) + _pass_on(COM2, COM1)
    return both + b"\xeb" + bytes([256 - len(both) - 2])  # jmp back to the beginning


def _pass_on(source: int, sink: int) -> bytes:
    """Pass one byte on, if there is one."""
    move = b"".join(
        (
            b"\xba" + _word(sink + 5),  #   mov dx, ..      <- wait: may one be sent?
            b"\xec",  #                    in al, dx
            b"\xa8\x20",  #                test al, 20h
            b"\x74\xf8",  #                jz wait         8 bytes back
            b"\xba" + _word(source),  #     mov dx, ..
            b"\xec",  #                    in al, dx
            b"\xba" + _word(sink),  #       mov dx, ..
            b"\xee",  #                    out dx, al
        )
    )
    is_there = b"\xba" + _word(source + 5) + b"\xec\xa8\x01"  # mov dx, ..; in al, dx; test al, 1
    return is_there + b"\x74" + bytes([len(move)]) + move  # jz past it


def _paint(text: bytes, colour: Colour, text_address: int) -> bytes:
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
        )
    )


def _word(number: int) -> bytes:
    return number.to_bytes(2, "little")
