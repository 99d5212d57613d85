"""Large sets: lists, ranges of names, and tar archives of strangers."""

import io
import os
import pathlib
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from experiments.drills import bad_files
from invjax.images import naming, shards, sources
from invjax.images.pixels import ImageError
from invjax.images.reading import UnreadableImage

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


def png(level: int = 0) -> bytes:
    return bad_files.saved(Image.fromarray(PIXELS // 2 + level), "PNG")


def names(spec) -> list[str]:
    return [source.name for source in sources.find(str(spec))]


def save(folder: pathlib.Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png())


# Lists


def test_a_list_is_read_line_by_line_and_from_its_own_folder(tmp_path, monkeypatch):
    save(tmp_path, "set/a.png", "set/deep/b.png", "c.png", "set/Straße.png")
    (tmp_path / "set" / "list.txt").write_bytes(
        "\ufeff# a comment\r\n\r\n a.png \r\ndeep/b.png\n../c.png\nStraße.png\n"
        f"sample:abstract\n{tmp_path}/set/absent.png\n".encode()
    )
    monkeypatch.chdir(tmp_path / "set" / "deep")
    found = sources.find("@../list.txt")
    assert [source.name for source in found] == [
        *("a", "b", "c", "Straße", "abstract", "absent")
    ]
    for source in found[:4]:
        assert sources.load(source).shape == (5, 4, 3)
    with pytest.raises(UnreadableImage, match="absent.png: no such file"):
        sources.load(found[5])


def test_a_list_may_name_files_of_any_ending(tmp_path):
    save(tmp_path, "a", "b.0001", "c.txt", "with,comma.png")
    (tmp_path / "list").write_text("a\nb.0001\nc.txt\nwith,comma.png\n")
    found = sources.find(f"@{tmp_path}/list")
    assert [s.name for s in found] == ["a", "b.0001", "c.txt", "with,comma"]
    assert all(sources.load(source).shape == (5, 4, 3) for source in found)


def test_lists_stand_beside_other_entries(tmp_path, monkeypatch):
    save(tmp_path, "a/1.png", "b/1.png", "c.png")
    (tmp_path / "list.txt").write_text("b/1.png\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(f"{tmp_path}/a,@~/list.txt, {tmp_path}/c.png") == ["a/1", "b/1", "c"]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "names no image"),
        (b"# nothing\n\n", "names no image"),
        (b"a.png\n\xff\xfe.png\n", "line 2 is no text in UTF-8"),
        (png(), "line 1 is no text in UTF-8"),
        (b"a.png\nb\0.png\n", "line 2 is not the name of a file"),
        (b"a.png\n./a.png\n", "listed twice"),
        (b"sample:lena\n", "no such sample"),
    ],
)
def test_bad_lists_are_refused(tmp_path, contents, words):
    (tmp_path / "list.txt").write_bytes(contents)
    with pytest.raises(ImageError, match=words) as caught:
        sources.find(f"@{tmp_path}/list.txt")
    assert "\n" not in str(caught.value)


def test_what_is_no_list_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("none", "no such file"), ("pipe", "pipe"), ("", "folder")]:
        with pytest.raises(ImageError, match=words):
            sources.find(f"@{tmp_path}/{name}")


# Ranges


def test_a_range_stands_for_its_numbers(tmp_path):
    save(tmp_path, *(f"{n:03d}.png" for n in range(8, 12)))
    save(tmp_path, *(f"{a}-{b}.png" for a in (9, 10) for b in (1, 0)))
    assert names(f"{tmp_path}/{{008..11}}.png") == ["008", "009", "010", "011"]
    assert names(f"{tmp_path}/{{9..10}}-{{1..0}}.png") == ["9-1", "9-0", "10-1", "10-0"]


def test_a_range_may_be_of_patterns(tmp_path):
    save(tmp_path, "01/a.png", "02/b.png", "02/c.png")
    assert names(f"{tmp_path}/{{01..02}}/*.png") == ["a", "b", "c"]
    assert names(f"{tmp_path}/{{01..02}}") == ["a", "b", "c"]


def test_a_file_with_braces_is_itself(tmp_path):
    save(tmp_path, "{1..2}.png")
    assert names(f"{tmp_path}/{{1..2}}.png") == ["{1..2}"]


def test_ranges_with_gaps_or_without_end_are_refused(tmp_path):
    save(tmp_path, "1.png", "3.png")
    with pytest.raises(ImageError, match="2.png: no such file"):
        names(f"{tmp_path}/{{1..3}}.png")
    with pytest.raises(ImageError, match="stands for 999,999,998,000,000,000 names"):
        names("{1..999999999}{1..999999999}.png")


# Archives


def write_tar(path, entries, *, kind=tarfile.PAX_FORMAT) -> str:
    """Writes (name or TarInfo, contents) pairs."""
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize(
    "kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_an_archive_is_read_where_it_lies(tmp_path, kind):
    entries = [
        ("./a.png", png(1)),
        ("./a.json", b"{}"),
        ("./a.cls", b"3"),
        ("./dogs/b.one.PNG", png(2)),
        ("./dogs/._b.one.png", b"what another system adds"),
        ("c" * 120 + ".png", png(3)),
    ]
    if kind == tarfile.USTAR_FORMAT:
        entries = entries[:-1]
    path = write_tar(tmp_path / "set.tar", entries, kind=kind)
    found = sources.find(path)
    assert [s.name for s in found] == ["a", "b", "c" * 120][: len(found)]
    assert len(found) == (2 if kind == tarfile.USTAR_FORMAT else 3)
    for number, source in enumerate(found, start=1):
        np.testing.assert_allclose(
            sources.load(source), (PIXELS // 2 + number) / 255, atol=1e-7
        )
        assert source.origin.startswith(f"{path}/")
    assert os.listdir(tmp_path) == ["set.tar"]


def test_members_of_one_sample_and_of_several_shards_are_told_apart(tmp_path):
    for number in range(3):
        write_tar(
            tmp_path / f"photos-{number:02d}.tar",
            [("0001.jpg", png()), ("0001.seg.png", png()), ("0002.jpg", png())],
        )
    assert names(f"{tmp_path}/photos-{{00..02}}.tar") == [
        f"photos-{number:02d}/{own}"
        for number in range(3)
        for own in ("0001.jpg", "0001.seg.png", "0002")
    ]
    assert names(f"{tmp_path}/*00.tar") == ["0001.jpg", "0001.seg.png", "0002"]
    with pytest.raises(ImageError, match="listed twice"):
        names(f"{tmp_path}/*00.tar,{tmp_path}/photos-00.tar")


def pax(name: str, **headers: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("plain.png")
    info.pax_headers = {"path": name, **headers}
    return info


HOSTILE = [
    "../../../etc/passwd.png",
    "/etc/shadow.png",
    "//server/share/x.png",
    "a/../../../b.png",
    "w\\..\\..\\windows\\c.png",
    "C:\\d.png",
    "CON.png",
    "aux/e.png",
    "COM\u00b9.png",
    "nul .png",
    "tab\tand\nline.png",
    "\x1b[31mred.png",
    "n\0ul.png",
    "\u202egnp.exe.png",
    "x" * 5000 + ".png",
    "\u00e4" * 300 + ".png",
    "deep/" * 300 + "f.png",
    "same.png",
    "same.png",
    "SAME.png",
    "./same.png",
    "sa\u0308me.png",
    "s\u00e4me.png",
    "<script>alert(1)</script>.png",
    "'\"&{{7*7}}.png",
    "a.png/g.png",
    "trailing. /h.png",
    " .png",
    "space .png",
    "$(touch owned).png",
    "-rf.png",
    "~/i.png",
    "%2e%2e%2fj.png",
    "\udcff.png",
]


def test_no_name_of_a_member_leaves_the_folder(tmp_path):
    entries = [(pax(name), png()) for name in HOSTILE if "\udcff" not in name]
    path = write_tar(tmp_path / "set.tar", entries)
    found = sources.find(path)
    assert len(found) == len(entries)
    assert_safe([source.name for source in found], tmp_path / "out")
    for source in found:
        assert source.origin.isprintable()
        assert sources.load(source).shape == (5, 4, 3)
    assert sorted(os.listdir(tmp_path)) == ["out", "set.tar"]


def test_no_name_that_naming_is_given_leaves_the_folder(tmp_path):
    """Also where all have equal stems, so that every path becomes a name."""
    for stem in ("", "one"):
        places = [
            naming.in_archive("/sets/a.tar", f"{name.rpartition('.')[0]}/{stem}.x.png")
            if stem
            else naming.in_archive("/sets/a.tar", name)
            for name in HOSTILE
        ]
        assert_safe(naming.different(places), tmp_path / f"out_{stem}")


def assert_safe(found: list[str], out: pathlib.Path) -> None:
    """Writes every name, and looks for what is not where it should be."""
    folded = {unicodedata.normalize("NFC", name).casefold() for name in found}
    assert len(folded) == len(found)
    before = set(out.parent.iterdir())
    for name in found:
        assert not name.startswith("/") and "\\" not in name and ":" not in name
        for part in name.split("/"):
            assert part.strip(". ") and len(part.encode()) < 220
            assert part.rstrip(". ") == part
            assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in part)
            assert part.partition(".")[0].rstrip().lower() not in ("con", "aux", "nul")
        assert len(name.encode()) <= 420
        picture = out / "originals" / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        assert not picture.exists()
        picture.write_bytes(b"")
        lane = out / "reconstructions" / name / "alexnet_relu3" / "start_000.png"
        lane.parent.mkdir(parents=True)
        lane.write_bytes(b"")
        assert picture.resolve().is_relative_to(out / "originals")
    assert len(list((out / "originals").rglob("*.png"))) == len(found)
    assert set(out.parent.iterdir()) - before == {out}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_and_devices_in_an_archive_are_not_followed(tmp_path):
    save(tmp_path, "secret.png")
    path = write_tar(
        tmp_path / "set.tar",
        [
            ("good.png", png()),
            (special("soft.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")), b""),
            (special("hard.png", tarfile.LNKTYPE, "good.png"), b""),
            (special("device.png", tarfile.CHRTYPE), b""),
            (special("pipe.png", tarfile.FIFOTYPE), b""),
            (special("folder.png", tarfile.DIRTYPE), b""),
            (special("odd.png", b"Z"), b""),
        ],
    )
    found = sources.find(path)
    assert [s.name for s in found] == ["good", "soft", "hard", "device", "pipe", "odd"]
    reasons = []
    for source in found[1:]:
        with pytest.raises(UnreadableImage) as caught:
            sources.load(source)
        reasons.append(caught.value.reason)
    assert ["link" in reason for reason in reasons] == [True, True, False, False, False]
    assert "device or a pipe" in reasons[2] and reasons[3] == reasons[2]
    assert "unknown kind" in reasons[4]


def test_a_member_that_claims_more_than_there_is_is_refused(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("a.png", png()), ("b.png", png())])
    data = bytearray(pathlib.Path(path).read_bytes())
    at = shards.members(path)[1].offset - 512
    header = tarfile.TarInfo("b.png")
    header.size = 2**33
    data[at : at + 512] = header.tobuf(tarfile.GNU_FORMAT)[:512]
    pathlib.Path(path).write_bytes(data)
    with pytest.raises(ImageError, match="damaged or not whole after 1 members"):
        sources.find(path)


def test_an_enormous_header_is_not_read(tmp_path):
    """2 GB of a name, in a file with a hole."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**31
    with open(tmp_path / "set.tar", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**31 + 2048)
    with pytest.raises(ImageError, match="damaged"):
        sources.find(str(tmp_path / "set.tar"))


def test_members_that_lead_back_end(tmp_path):
    """A negative size of a pax header would lead to the same member for ever."""
    path = write_tar(tmp_path / "set.tar", [(pax("a.png", size="-1536"), b"")])
    with pytest.raises(ImageError, match="damaged"):
        sources.find(path)


def test_a_thousand_headers_of_headers_end(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 512
    block = header.tobuf(tarfile.USTAR_FORMAT) + b"16 comment=12345\n".ljust(512, b"\0")
    (tmp_path / "set.tar").write_bytes(5000 * block)
    with pytest.raises(ImageError, match="damaged"):
        sources.find(str(tmp_path / "set.tar"))


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda data: b"", "damaged"),
        (lambda data: b"no archive, but text" * 100, "damaged"),
        (lambda data: png(), "damaged"),
        (lambda data: b"\x1f\x8b" + data, "compressed .gzip."),
        (lambda data: data[: len(data) // 2 + 100], "after 2 members"),
        (lambda data: data[:1536] + b"\xff" * 512 + data[2048:], "after 1 members"),
        (lambda data: bytes(len(data)), "no image files"),
    ],
)
def test_damaged_archives_are_refused(tmp_path, cut, words):
    path = tmp_path / "set.tar"
    write_tar(path, [(f"{n}.png", png().ljust(1024, b"\0")) for n in range(4)])
    data = path.read_bytes()[: 4 * 1536 + 1024]
    path.write_bytes(cut(data))
    with pytest.raises(ImageError, match=words) as caught:
        sources.find(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_archive_without_its_end_is_read(tmp_path):
    """As those are that were joined, and as tar itself reads them."""
    path = tmp_path / "set.tar"
    write_tar(path, [("a.png", png().ljust(1024, b"\0"))])
    path.write_bytes(path.read_bytes()[:1536])
    assert names(path) == ["a"]


def test_archives_without_images_and_missing_ones_are_refused(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("a.json", b"{}"), ("b.json", b"{}")])
    with pytest.raises(ImageError, match=r"there are \.json 2"):
        sources.find(path)
    with pytest.raises(ImageError, match="x-2.tar: no such file"):
        save(tmp_path, "x-1.png")
        sources.find(f"{tmp_path}/x-{{2..3}}.tar")


def test_an_archive_that_has_shrunk_or_gone_is_said(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("a.png", png()), ("b.png", png())])
    *_, source = sources.find(path)
    os.truncate(path, 1024)
    with pytest.raises(UnreadableImage, match="shorter than when it was listed"):
        sources.load(source)
    os.unlink(path)
    with pytest.raises(UnreadableImage, match="the archive cannot be read"):
        sources.load(source)


def test_listing_decodes_nothing(tmp_path, monkeypatch):
    save(tmp_path, "a.png")
    path = write_tar(tmp_path / "set.tar", [("b.png", png())])
    (tmp_path / "list.txt").write_text("c.png\n")
    monkeypatch.setattr(Image, "open", None)
    assert names(f"{tmp_path},{path},@{tmp_path}/list.txt") == ["a", "b", "c"]


def test_many_equal_names_are_told_apart_in_time():
    places = [naming.in_archive("/a.tar", "x/same.png") for _ in range(10_000)]
    found = naming.different(places)
    assert found[0] == "same.png" and found[-1] == "same.png_10000"
    assert len(set(found)) == 10_000


def test_a_digest_tells_lists_apart(tmp_path):
    save(tmp_path, "a.png", "b.png")
    a, b = (sources.find(f"{tmp_path}/{name}.png") for name in "ab")
    digests = {sources.digest(found) for found in (a, b, a + b, b + a)}
    assert len(digests) == 4
    assert sources.digest(a) == sources.digest(list(a))
