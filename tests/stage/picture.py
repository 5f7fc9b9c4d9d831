"""Pictures, read from binary PPM (P6), and how much of one shows a colour."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Rgb = tuple[int, int, int]

#: Exactly one white space ends it: the first pixels may look like white space too.
HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")

#: The accepted difference of red, green and blue: a viewer may dither or scale.
NEAR = 8


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    pixels: bytes

    @classmethod
    def from_ppm(cls, data: bytes) -> Picture:
        header = HEADER.match(data)
        if not header:
            raise StageError(f"not an 8 bit PPM: {data[:20]!r}")
        return cls(int(header[1]), int(header[2]), data[header.end() :])

    def right_half(self) -> Picture:
        half, line = self.width // 2, 3 * self.width
        rows = (self.pixels[at + 3 * half : at + line] for at in range(0, len(self.pixels), line))
        return Picture(self.width - half, self.height, b"".join(rows))

    def _colours(self) -> Iterator[Rgb]:
        return zip(self.pixels[0::3], self.pixels[1::3], self.pixels[2::3], strict=True)

    def colour_share(self, rgb: Rgb) -> float:
        """The share of the picture that shows `rgb`, 0 to 1."""
        near = sum(
            count for colour, count in Counter(self._colours()).items() if _near(colour, rgb)
        )
        return near / (self.width * self.height)


def _near(colour: Rgb, other: Rgb) -> bool:
    return all(abs(one - two) <= NEAR for one, two in zip(colour, other, strict=True))
