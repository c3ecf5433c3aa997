"""What a number may be, said in the signature of a transport: that is its schema."""

import sys
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """From ``least`` to ``most``, or over ``least``; never NaN or infinite.

    Metadata of ``Annotated``, read where settings are.
    """

    least: float = 0
    most: float = sys.float_info.max
    over: bool = False

    def admits(self, value: float) -> bool:
        """Whether a number is within it."""
        return self.least <= value <= self.most and not (
            self.over and value == self.least
        )

    def __str__(self) -> str:
        if self.most < sys.float_info.max:
            return f"{self.least} to {self.most}"
        return f"a number {'over' if self.over else 'of at least'} {self.least}"


Seconds = Annotated[float, Range(over=True)]
SecondsOrZero = Annotated[float, Range()]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range()]
Port = Annotated[int, Range(1, 65_535)]
