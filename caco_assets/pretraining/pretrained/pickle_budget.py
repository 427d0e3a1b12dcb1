"""Estimates from a pickle's opcodes what its objects would take, so that one that asks for too much is refused before it is built.

One byte of a pickle can make an object of 200 bytes or reserve gigabytes, and a few bytes a tensor. Sound checkpoints hold names,
sizes and hyper-parameters: some kilobytes that make some hundred kilobytes.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import IO

# Bytes of the object that an opcode makes, as CPython 3.12 and torch have them, and of its places in containers; rounded up.
_OTHER = 64
_COSTS = {
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BINPERSID", "PERSID"), 1024),
    **dict.fromkeys(("EMPTY_SET", "FROZENSET"), 256),
    **dict.fromkeys(("EMPTY_DICT", "DICT", "EMPTY_LIST", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BUILD"), 128),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), 128),
}
# A character takes up to four bytes in memory and at least one in the file.
_WIDEST = 4
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


def check_budget(stream: IO[bytes], budget: int) -> None:
    """Read one pickle without building anything, and return to its beginning.

    Args:
        stream: at the beginning of the pickle.
        budget: bytes that its objects may take.

    Raises:
        pickle.UnpicklingError: they would take more, or the pickle reserves places for objects that it does not have.
        ValueError: it is no pickle.
    """
    start, taken = stream.tell(), 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        taken += _COSTS.get(opcode.name, _OTHER)
        if isinstance(argument, str | bytes | bytearray):
            taken += _WIDEST * len(argument)
        # the unpickler reserves as many places as the largest number says
        if opcode.name in _PUTS and isinstance(argument, int) and argument > count:
            raise pickle.UnpicklingError(f"it numbers an object {argument} after {count} steps")
        if taken > budget:
            raise pickle.UnpicklingError(f"its objects would take more than {budget >> 20} MB of memory")
    stream.seek(start)
