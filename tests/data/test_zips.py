"""A zip archive is taken whole or refused, whatever its directory says."""

import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksdd_lib.data.zips import open_archive
from ksdd_lib.errors import DataError

FILES = {
    "kos01/Part0.jpg": b"an image",
    "kos01/Part0_label.bmp": b"its mask" * 9,
    "kos\u00e402/Part0.png": b"another",
}
OTHERS = {"readme.pdf": b"no part of the data", "kos01/": b""}


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of a few hundred bytes: three files of a data set, one other, one folder."""
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w", request.param) as target:
        for name, content in (FILES | OTHERS).items():
            target.writestr(name, content)
    return tmp_path / "tiny.zip"


def contents(path: Path) -> dict[str, bytes]:
    """All that would be unpacked, as `archive.unpack` asks for it."""
    with open_archive(path) as archive:
        return dict(archive.contents())


def each_byte_changed(path: Path, start: int) -> Iterator[str]:
    """Flip each bit of a file from `start` on, and make each byte 0, 255 and a slash, in turn."""
    whole = path.read_bytes()
    for place in range(start, len(whole)):
        changed = {whole[place] ^ (1 << bit) for bit in range(8)} | {0, 255, ord("/")}
        for value in sorted(changed - {whole[place]}) + [whole[place]]:
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(bytes([value]))
            yield f"byte {place} is {value}"


@pytest.mark.fault(2)
def test_whatever_changes_in_the_directory_no_file_is_lost_in_silence(tiny: Path):
    refused = 0
    for what in each_byte_changed(tiny, tiny.read_bytes().index(b"PK\x01\x02")):
        try:
            assert contents(tiny) == FILES, what
        except DataError as error:
            assert "tiny.zip" in str(error), what
            refused += 1
    assert refused > 1000


@pytest.mark.fault(2)
@pytest.mark.parametrize("promised", [0, 1, 4, 6])
def test_a_directory_of_fewer_or_more_members_than_promised_is_refused(tiny: Path, promised: int):
    data = bytearray(tiny.read_bytes())
    data[-12:-10] = promised.to_bytes(2, "little")
    tiny.write_bytes(data)
    with pytest.raises(DataError, match=f"lists 5 members, its end says {promised}"):
        contents(tiny)


@pytest.mark.fault(2)
def test_very_many_members_are_counted_by_the_record_made_for_them(tiny: Path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # of 65,535
    with zipfile.ZipFile(tiny, "a") as target:
        target.writestr("kos03/Part0.jpg", b"one more")
    data = bytearray(tiny.read_bytes())
    data[-14:-10] = b"\xff\xff\xff\xff"  # what the last record says where it has no room
    tiny.write_bytes(data)
    assert contents(tiny) == FILES | {"kos03/Part0.jpg": b"one more"}
    data[data.rindex(b"PK\x06\x06") + 32] += 1
    tiny.write_bytes(data)
    with pytest.raises(DataError, match="lists 6 members, its end says 7"):
        contents(tiny)


@pytest.mark.fault(2)
def test_a_member_that_is_ignored_is_checked_too(tiny: Path):
    data = tiny.read_bytes()
    place = data.index(b"readme.pdf") + len(b"readme.pdf") + 2
    tiny.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(DataError, match="tiny.zip, member 'readme.pdf', is cut off or damaged"):
        contents(tiny)


def joined(first: bytes, last: bytes) -> bytes:
    return first + last


def joined_and_mended(first: bytes, last: bytes) -> bytes:
    """As `zip -A` mends it: the directory knows of the bytes before the first member."""
    data, end = bytearray(first + last), len(first) + last.rindex(b"PK\5\6")
    place = len(first) + int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = place.to_bytes(4, "little")
    while data[place : place + 4] == b"PK\1\2":
        offset = int.from_bytes(data[place + 42 : place + 46], "little") + len(first)
        data[place + 42 : place + 46] = offset.to_bytes(4, "little")
        place += 46 + sum(
            int.from_bytes(data[place + i : place + i + 2], "little") for i in (28, 30, 32)
        )
    return bytes(data)


@pytest.mark.fault(42)
@pytest.mark.parametrize("join", [joined, joined_and_mended])
@pytest.mark.parametrize("first", ["an archive", "its first half", "PK"])
def test_what_stands_before_the_first_member_is_never_lost_in_silence(tiny: Path, join, first):
    whole = tiny.read_bytes()
    before = {"an archive": whole, "its first half": whole[: len(whole) // 2]}.get(first, b"PK")
    tiny.write_bytes(join(before, whole))
    with pytest.raises(DataError, match=f"tiny.zip is refused: {len(before)} bytes stand before"):
        contents(tiny)


def claim(path: Path, name: str, packed: bytes, size: int, checksum: int) -> None:
    """Add a deflated member of which the directory claims this size and this CRC-32."""
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(name, packed)
        member = target.getinfo(name)
        member.compress_type, member.file_size, member.CRC = zipfile.ZIP_DEFLATED, size, checksum


def deflated_zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * megabytes + packer.flush()


@pytest.mark.fault(5)
@pytest.mark.parametrize("checksum", [zlib.crc32(bytes(1000)), 7], ids=["of its start", "wrong"])
@pytest.mark.parametrize("name", ["kos09/Part0.jpg", "notes.txt"])
def test_a_member_that_lies_about_its_size_is_not_unpacked_to_find_out(
    tiny: Path, name: str, checksum: int
):
    packed = deflated_zeros(512)
    assert len(packed) < 800_000
    claim(tiny, name, packed, 1000, checksum)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"member '{name}', .* than the 1,000 bytes it claims"):
            contents(tiny)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.fault(5)
def test_a_member_that_holds_less_than_it_claims_is_refused(tiny: Path):
    claim(tiny, "kos09/Part0.jpg", deflated_zeros(1), 2**20 + 1, zlib.crc32(bytes(2**20)))
    with pytest.raises(DataError, match="member 'kos09/Part0.jpg', .* than the 1,048,577 bytes"):
        contents(tiny)


@pytest.mark.fault(5)
def test_an_archive_that_claims_ten_gigabytes_is_refused_with_its_largest_member(tiny: Path):
    for number in range(160):
        claim(tiny, f"kos09/Part{number}.jpg", b"x", (63 + (number == 90)) * 2**20, 0)
    with pytest.raises(DataError, match=r"unpacks to 10,5\d\d,\d{3},\d{3} bytes") as refused:
        contents(tiny)
    assert "its largest member is 'kos09/Part90.jpg' with 67,108,864" in str(refused.value)
