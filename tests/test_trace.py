"""Reading traces: what is accepted, and where a file is said to be broken."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pytest

from gpuvm.trace import source as source_module
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.position import column_of
from gpuvm.trace.recorded import (
    DOMAIN_GART,
    DOMAIN_NO_SHARE,
    DOMAIN_VRAM,
    GemNew,
    Other,
    Submission,
    VmBind,
    VmInit,
)
from gpuvm.trace.replay import Replay
from gpuvm.trace.source import Source, display_name, upto, watched
from suite import scaled
from tracefile import (
    PAGE,
    SPARSE_BUFFER,
    STREAMING,
    VULKANINFO,
    Call,
    bind,
    call,
    gem_new,
    op,
    records_in,
    text_of,
    vm_init,
    write,
    write_trace,
)

GOOD = text_of(vm_init())
BIND = text_of(bind(op("map", 0, PAGE, 1)))


def test_records_carry_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"\n{GOOD}  \n{BIND}")
    assert [type(record) for record in records_in(path)] == [VmInit, VmBind]
    assert [record.line for record in records_in(path)] == [2, 4]


def test_plain_and_gzipped_give_the_same(tmp_path: Path) -> None:
    calls = [vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1))]
    plain = write_trace(tmp_path, *calls)
    packed = write_trace(tmp_path, *calls, name="trace.gz")
    assert records_in(plain) == records_in(packed)


def test_gzip_is_told_by_its_first_bytes_not_by_its_name(tmp_path: Path) -> None:
    assert len(records_in(write(tmp_path, gzip.compress(GOOD.encode()), "plain.jsonl"))) == 1


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(gzip.compress(GOOD.encode())))

    monkeypatch.setattr("sys.stdin", Stdin)
    with Source("-") as source:
        assert source.name == "<stdin>"
        assert source.size is None
        assert len(list(read_records(source.name, source))) == 1
    assert not Stdin.buffer.closed


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TraceError, match="standard input is closed"):
        Source("-")


@pytest.mark.parametrize("name", ["channel_alloc", "syncobj_timeline_signal", "gem_info", "getparam"])
def test_calls_that_leave_the_space_alone_are_skipped(tmp_path: Path, name: str) -> None:
    (record,) = records_in(write(tmp_path, text_of(call(name, whatever=[1, {"a": None}]))))
    assert isinstance(record, Other)
    assert record.call == name


def test_an_object_may_be_where_the_trace_says_or_in_both_places(tmp_path: Path) -> None:
    calls = gem_new(1, domain=0x24), gem_new(2, domain=DOMAIN_VRAM), gem_new(3)
    made = records_in(write_trace(tmp_path, *calls))
    domains = [record.domain for record in made if isinstance(record, GemNew)]
    assert domains == [DOMAIN_GART | DOMAIN_NO_SHARE, DOMAIN_VRAM, DOMAIN_VRAM | DOMAIN_GART]


def test_push_buffers(tmp_path: Path) -> None:
    pushes = [{"va": 0x1000, "va_len": 48, "flags": 1}, {"va": 1 << 40, "va_len": 0}]
    told, untold = records_in(write_trace(tmp_path, call("exec", pushes=pushes), call("exec", channel=1)))
    assert isinstance(told, Submission)
    assert told.pushes == ((0x1000, 48, 1), (1 << 40, 0, 0))
    assert isinstance(untold, Submission)
    assert untold.pushes == ()


@pytest.mark.parametrize("example", [STREAMING, SPARSE_BUFFER, VULKANINFO], ids=lambda path: path.name)
def test_examples_are_read_to_the_end(example: Path) -> None:
    data = example.read_bytes()
    lines = gzip.decompress(data) if example.suffix == ".gz" else data
    assert len(records_in(str(example))) == lines.count(b"\n")


def without(field: str, of: Call) -> str:
    return text_of({key: value for key, value in of.items() if key != field})


HUGE = 1 << 64
BROKEN: dict[str, tuple[str | bytes, int | None, int | None, str]] = {
    "empty": ("", None, None, "no record in it"),
    "blank": ("\n \n", None, None, "no record in it"),
    "not json": (GOOD + '{"t":7,,}', 2, 8, "not valid JSON"),
    "cut off": (GOOD + BIND[:41], 2, 36, "not valid JSON: Unterminated string"),
    "two objects": (GOOD.strip() + GOOD, 1, len(GOOD), "not valid JSON: Extra data"),
    "garbage": (b"\x7fELF\x02\x01\x01\x00\x00", 1, 1, "not valid JSON"),
    "garbage, high bytes": (b"ab\xff\xfe", 1, 3, "not UTF-8 text (byte 0xff)"),
    "utf-8 cut in two": (GOOD.encode() + '{"ü'.encode()[:-1], 2, 3, "not UTF-8"),
    "zero bytes": (bytes(100), 1, 1, "not valid JSON"),
    "NaN": ('{"t":NaN}', 1, 6, "NaN is not JSON"),
    "nested": ("[" * 100_000, 1, 1, "nested too deeply"),
    "thousands of digits": ('{"t":' + "9" * 5000 + "}", 1, 6, "thousands of digits"),
    "a list": ("[1]", 1, 1, "expected a JSON object"),
    "a number": ("  12", 1, 3, "expected a JSON object"),
    "no t": (without("t", vm_init()), 1, 1, '"t" is missing'),
    "no client": (without("client", vm_init()), 1, 1, '"client" is missing'),
    "no call": (without("call", vm_init()), 1, 1, '"call" is missing'),
    "no ret": (without("ret", vm_init()), 1, 1, '"ret" is missing'),
    "no kernel_addr": (without("kernel_addr", vm_init()), 1, 1, '"kernel_addr" is missing'),
    "no handle": (without("handle", gem_new(1)), 1, 1, '"handle" is missing'),
    "no ops": (without("ops", bind()), 1, 1, '"ops" is missing'),
    "client is text": ('{"t":1,"client":"2","call":"exec","ret":0}', 1, 17, '"client" is "2"'),
    "client is true": ('{"t":1,"client":true,"call":"exec","ret":0}', 1, 17, '"client" is true'),
    "client is a float": ('{"t":1,"client":2.0,"call":"exec","ret":0}', 1, 17, '"client" is 2.0'),
    "client is negative": ('{"t":1,"client":-2,"call":"exec","ret":0}', 1, 17, "which is negative"),
    "t is huge": (f'{{"t":{HUGE},"client":1,"call":"exec","ret":0}}', 1, 6, "does not fit 64 bits"),
    "ret is positive": ('{"t":1,"client":2,"call":"exec","ret":1}', 1, 39, "0 or a negative errno"),
    "unknown call": ('{"t":1,"client":2,"call":"exce","ret":0}', 1, 26, 'unknown call "exce"'),
    "lone surrogate": ('{"t":1,"client":2,"call":"\\ud800","ret":0}', 1, 26, "unknown call"),
    "call is a number": ('{"t":1,"client":2,"call":7,"ret":0}', 1, 26, '"call" is 7'),
    "handle of 33 bits": (text_of(gem_new(1 << 32)), 1, 60, "does not fit 32 bits"),
    "domain is text": (text_of(gem_new(1, domain="vram")), 1, 71, '"domain" is "vram"'),
    "pushes is a number": (text_of(call("exec", pushes=3)), 1, 42, '"pushes" is 3: expected a list'),
    "push is a number": (text_of(call("exec", pushes=[{"va": 1, "va_len": 2}, 4])), 1, 63, "push 1 is not"),
    "push without va": (text_of(call("exec", pushes=[{"va_len": 2}])), 1, 43, '"va" is missing'),
    "push is negative": (text_of(call("exec", pushes=[{"va": -1, "va_len": 2}])), 1, 49, "is negative"),
    "ops is an object": ('{"t":1,"client":2,"call":"vm_bind","ops":{},"ret":0}', 1, 42, '"ops" is {}'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_with_its_column(tmp_path: Path, name: str) -> None:
    content, line, column, message = BROKEN[name]
    path = write(tmp_path, content)
    with pytest.raises(TraceError) as caught:
        records_in(path)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addr": HUGE}, '"addr" is 18446744073709551616, which does not fit 64 bits'),
        ({"addr": 10**50}, '"addr" is a number of 51 digits, which does not fit'),
        ({"range": -1}, '"range" is -1, which is negative'),
        ({"bo_offset": None}, '"bo_offset" is null: expected a whole number'),
        ({"flags": 1 << 32}, "does not fit 32 bits"),
        ({"handle": "1"}, '"handle" is "1"'),
        ({"op": "remap"}, 'unknown op "remap": expected "map" or "unmap"'),
        ({"op": 0}, '"op" is 0'),
    ],
)
def test_a_broken_op_is_named_with_its_column(change: Call, message: str) -> None:
    bad = {**op("map", 0, PAGE, 1), **change}
    text = text_of(bind(op("map", 0, PAGE, 1), bad)).strip()
    with pytest.raises(TraceError) as caught:
        list(read_records("f", [(9, text)]))
    (field,) = change
    second = text.index('{"op"', text.index('"ops"') + 10)
    assert caught.value.column == text.index(f'"{field}":', second) + len(field) + 4
    assert message in caught.value.message


def test_a_missing_field_of_an_op_points_at_the_op() -> None:
    for field in op("map", 0, PAGE):
        bad = {key: value for key, value in op("map", 0, PAGE).items() if key != field}
        text = text_of(bind(op("map", 0, PAGE, 1), bad)).strip()
        with pytest.raises(TraceError, match=f'"{field}" is missing') as caught:
            list(read_records("f", [(1, text)]))
        assert caught.value.column is not None
        assert text[caught.value.column - 1 :].startswith(json.dumps(bad, separators=(",", ":")))


def test_an_op_that_is_no_object() -> None:
    with pytest.raises(TraceError, match="op 0 is not a JSON object"):
        list(read_records("f", [(1, text_of(call("vm_bind", ops=[3])))]))


def test_truncated_gzip(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD * 50).encode() + BIND.encode())
    with pytest.raises(TraceError, match="truncated") as caught:
        records_in(write(tmp_path, packed[:-9]))
    assert caught.value.line is not None


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(GOOD.encode()))
    packed[-5] ^= 0xFF
    with pytest.raises(TraceError, match="damaged"):
        records_in(write(tmp_path, bytes(packed)))
    with pytest.raises(TraceError, match="damaged"):
        records_in(write(tmp_path, b"\x1f\x8b" + bytes(20)))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(TraceError, match=message) as caught:
            Source(str(path))
        assert caught.value.line is None
    with pytest.raises(TraceError, match="not a file name"):
        Source("a\0b")


def test_a_file_without_line_ends_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "LONGEST_LINE", 100)
    with pytest.raises(TraceError, match="longer than 64 MiB"):
        records_in(write(tmp_path, " " * 101))


def test_names_that_cannot_be_printed_are_escaped() -> None:
    assert display_name("a\nb\x1b") == "a\\x0ab\\x1b"
    assert display_name("-") == "<stdin>"


def test_upto() -> None:
    lines = [(1, "a"), (2, "b"), (3, "c")]
    assert list(upto("f", lines, None)) == lines
    assert list(upto("f", lines, 2)) == lines[:2]
    assert list(upto("f", lines, 3)) == lines
    with pytest.raises(TraceError, match="line 4 was asked for, but the file has 3 lines"):
        list(upto("f", lines, 4))


def test_lines_after_the_last_wanted_are_not_read(tmp_path: Path) -> None:
    with Source(write(tmp_path, GOOD + "broken\n")) as source:
        assert len(list(read_records(source.name, upto(source.name, source, 1)))) == 1


def test_watched_tells_how_far_it_is() -> None:
    seen: list[tuple[int, int]] = []
    with Source(str(STREAMING)) as source:
        total = sum(1 for _ in watched(source, lambda done, lines: seen.append((done, lines)), every=1000))
        assert seen[-1][0] <= (source.size or 0)
    assert [lines for _, lines in seen] == list(range(1000, total + 1, 1000))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("text", "path", "column"),
    [
        ("  {}", (), 3),
        ('{"a":1}', ("a",), 6),
        ('{ "a" : [ 1 , {"b":2} ] }', ("a", 1, "b"), 20),
        ('{"a":[1,2,3]}', ("a", 2), 11),
        ('{"a":[1]}', ("a", 1), 6),
        ('{"a":1,"a":2}', ("a",), 12),
        ('{"x":"\\"a\\":","a":[]}', ("a",), 19),
        ('{"a":1}', ("b",), 1),
        ('{"a":1}', ("a", "b"), 6),
    ],
)
def test_column_of(text: str, path: tuple[str | int, ...], column: int) -> None:
    assert column_of(text, path) == column


@pytest.mark.parametrize("seed", range(scaled(20, 400)))
def test_a_damaged_trace_is_one_clear_error_or_none(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytearray(SPARSE_BUFFER.read_bytes())
    for _ in range(rng.choice((1, 2, 20))):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] = rng.choice(b'0123456789-."{}[],:')
            case 2:
                del data[at : at + rng.choice((1, 10, 1000))]
            case 3:
                data[at:at] = data[at : at + rng.choice((1, 10, 1000))]
    if rng.random() < 0.3:
        data = bytearray(gzip.compress(bytes(data)))
        data[rng.randrange(10, len(data))] ^= 1 << rng.randrange(8)
    message = ""
    try:
        Replay("damaged").run(records_in(write(tmp_path, bytes(data))))
    except TraceError as error:
        message = str(error)
    assert "\n" not in message
