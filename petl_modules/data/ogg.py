"""Ogg files that are several streams one after the other, each a sound of its own with
its own rate and channels, such as recordings of a radio: a chain."""

from typing import BinaryIO

PAGE = b"OggS"
HEADER = 27  # bytes of a page before the sizes of its parts
KIND, PARTS = 5, 26  # places in the header: the kind's bits, the number of the parts
FIRST = 2  # the bit of a stream's first page


def links(file: BinaryIO) -> list[tuple[int, int]]:
    """Where the streams of a chain begin and end in a file, in bytes; one for a file
    that is no chain, or no Ogg (RFC 3533).

    Streams that are played side by side begin together, and are one link.
    """
    starts, place, beginning = [0], 0, True
    while (header := page_at(file, place)) is not None:
        first = bool(header[KIND] & FIRST)
        if first and not beginning:
            starts.append(place)
        beginning = first
        place += HEADER + header[PARTS] + sum(file.read(header[PARTS]))
    end = file.seek(0, 2)
    return list(zip(starts, [*starts[1:], end], strict=True))


def page_at(file: BinaryIO, place: int) -> bytes | None:
    """A page's header, after which the file stands, or None if there is no page."""
    file.seek(place)
    header = file.read(HEADER)
    return header if len(header) == HEADER and header.startswith(PAGE) else None
