"""Entries of a zip archive: where their bytes are, checked before any is read."""

import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from kvision.weights.byte_file import Block, ByteFile
from kvision.weights.checkpoint import CheckpointError, shown

__all__ = ["Entry", "zip_entries"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
# Weights hardly shrink; zeros shrink a thousandfold, but whole files of them do not
# occur. A bomb of 10 MB would take 10 GB.
_MAX_EXPANSION = 100
_SMALL = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """A file in an archive.

    Attributes:
        name: its name there, which is never used as a path.
        block: its bytes as they are stored.
        size: its bytes once inflated.
        checksum: CRC-32 of these; 0 where the writer left it out, as torch can.
        deflated: whether it is compressed.
    """

    name: str
    block: Block
    size: int
    checksum: int
    deflated: bool

    def head(self, count: int) -> bytes:
        """Return the first bytes, at most `count`, without a look at the checksum."""
        stored = self.block.read(0, min(count, self.block.size)).tobytes()
        return _inflate(stored, count) if self.deflated else stored

    def read(self, start: int, count: int) -> np.ndarray:
        """Read a part of the entry.

        Args:
            start: its first byte.
            count: how many.

        Returns:
            (count,) uint8 array.

        Raises:
            CheckpointError: if the bytes are not those that were written.
        """
        if min(start, count) < 0 or start + count > self.size:
            raise CheckpointError(
                f"expected {count} bytes at {start} of {shown(self.name)!r}, which has "
                f"{self.size}: the file is damaged"
            )
        # The checksum is that of the whole: of a part of an entry it says nothing.
        if not self.deflated and count < self.size:
            return self.block.read(start, count)
        return self._whole()[start : start + count]

    def _whole(self) -> np.ndarray:
        data = self.block.read(0, self.block.size)
        if self.deflated:
            data = np.frombuffer(_inflate(data.tobytes(), self.size + 1), np.uint8)
        if data.size != self.size or self.checksum not in (0, zlib.crc32(data.data)):
            raise CheckpointError(
                f"the bytes of {shown(self.name)!r} do not fit their checksum: the "
                "file is damaged. Download or copy it again"
            )
        return data


def zip_entries(source: ByteFile) -> dict[str, Entry]:
    """List the files in an archive.

    Args:
        source: the archive.

    Returns:
        Name -> entry, without folders.

    Raises:
        CheckpointError: if it is damaged or encrypted, or entries share bytes, have the
            same name or would grow to more than 100 times their bytes.
    """
    found = _central_directory(source)
    infos = [info for info in found if not info.filename.endswith("/")]
    entries = {info.filename: _entry(source, info) for info in infos}
    if len(entries) < len(infos):
        raise CheckpointError("two entries of the archive have the same name")
    if sum(entry.block.size for entry in entries.values()) > source.size:
        raise CheckpointError("entries of the archive overlap: it is damaged")
    return entries


def _central_directory(source: ByteFile) -> list[zipfile.ZipInfo]:
    try:
        with source.path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            return archive.infolist()
    # Damaged archives bring zipfile to errors of many types.
    except Exception as error:
        raise CheckpointError(
            f"the archive is incomplete or damaged ({error}). Download or copy it again"
        ) from error


def _entry(source: ByteFile, info: zipfile.ZipInfo) -> Entry:
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if info.flag_bits & _ENCRYPTED or not (
        deflated or info.compress_type == zipfile.ZIP_STORED
    ):
        raise CheckpointError(
            f"{shown(info.filename)!r} is encrypted or compressed by another method "
            "than deflate. Write the archive again without"
        )
    size, stored = info.file_size, info.compress_size
    if size > max(_SMALL, _MAX_EXPANSION * stored) or not (deflated or size == stored):
        raise CheckpointError(
            f"{shown(info.filename)!r} claims {size} bytes where {stored} are stored"
        )
    block = Block(source, _data_offset(source, info), stored)
    if block.offset + stored > source.size:
        raise CheckpointError(f"the archive ends within {shown(info.filename)!r}")
    return Entry(info.filename, block, size, info.CRC, deflated)


def _data_offset(source: ByteFile, info: zipfile.ZipInfo) -> int:
    header = source.read(info.header_offset, _LOCAL_HEADER.size).tobytes()
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise CheckpointError(f"{shown(info.filename)!r} is not where the archive says")
    return info.header_offset + _LOCAL_HEADER.size + name + extra


def _inflate(stored: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, most)
    except zlib.error as error:
        raise CheckpointError(f"compressed bytes are damaged ({error})") from error
