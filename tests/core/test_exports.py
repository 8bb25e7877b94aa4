"""Exports as messages."""

import pytest

from ioasid.core import (
    ExportedIoasid,
    IoasidRange,
    SetExport,
    TokenType,
    WireFormat,
    decode_output,
    encode,
)

EXPORT = SetExport("vm", TokenType.MM, 4, (IoasidRange(1, 3),), (ExportedIoasid(2, 7, "x"),))


@pytest.mark.parametrize("format_", WireFormat)
def test_an_export_crosses_a_wire(format_: WireFormat) -> None:
    """What comes back is the same."""
    assert EXPORT == decode_output(encode(EXPORT, format_), format_)


def test_equal_exports_are_of_equal_sets() -> None:
    """An ID, a spid or a value more or less is another export."""
    others = (
        SetExport("vm", TokenType.MM, 4, (IoasidRange(1, 2),), EXPORT.ioasids),
        SetExport("vm", TokenType.MM, 4, EXPORT.ranges, ()),
        SetExport("vm", TokenType.MM, 4, EXPORT.ranges, (ExportedIoasid(2, None, "x"),)),
    )
    assert [False] * 3 == [EXPORT == other for other in others]
