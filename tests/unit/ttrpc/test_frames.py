import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.ttrpc import frames
from kata_py.ttrpc.frames import Frame, FrameReader
from tests.unit.ttrpc.splitting import feed, splits

FRAMES = st.lists(
    st.builds(
        lambda stream_id, kind, flags, body: (kind, stream_id, flags, body),
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.integers(0, 255),
        st.binary(max_size=200) | st.sampled_from([b"long" * 17_000, b"x" * 65_526, b"x" * 65_527]),
    ),
    max_size=6,
)


@given(FRAMES, st.data())
def test_frames_come_back_as_they_were_whatever_the_pieces_they_arrive_in(wanted, data):
    stream = b"".join(frames.encode(*frame) for frame in wanted)
    reader = FrameReader()
    got = feed(reader.space, reader.filled, data.draw(splits(stream)))
    assert [(frame.type, frame.stream_id, frame.flags, bytes(frame.body)) for frame in got] == wanted
    assert not reader.mid_frame


@given(st.binary(max_size=300), st.data())
def test_no_bytes_make_the_reader_raise_or_stand_still(stream, data):
    reader = FrameReader(limit=64)
    pieces = data.draw(splits(stream))
    for frame in feed(reader.space, reader.filled, pieces):
        assert (frame.body is None) == (frame.length > 64)
    assert len(reader.space()) > 0


@given(FRAMES, st.integers(65, 100_000), st.data())
def test_an_overlong_frame_is_told_without_its_body_and_the_next_ones_are_read(others, length, data):
    overlong = struct.pack(">IIBB", length, 5, frames.REQUEST, 0) + b"?" * length
    wanted = [frame for frame in others if len(frame[3]) <= 64]
    stream = overlong + b"".join(frames.encode(*frame) for frame in wanted)
    reader = FrameReader(limit=64)
    got = feed(reader.space, reader.filled, data.draw(splits(stream)))
    assert got[0] == Frame(5, frames.REQUEST, 0, None, length)
    assert [bytes(frame.body) for frame in got[1:]] == [frame[3] for frame in wanted]
    assert not reader.mid_frame


def test_a_header_is_ten_bytes_in_network_order():
    assert frames.encode(frames.REQUEST, 3, frames.REMOTE_OPEN, b"ab") == bytes.fromhex("00000002 00000003 01 02 6162")


def test_four_mebibytes_fit_and_one_byte_more_does_not():
    limit = 4 << 20
    reader = FrameReader()
    (fits,) = feed(reader.space, reader.filled, [frames.encode(frames.DATA, 1, 0, bytes(limit))])
    assert len(fits.body) == limit
    (over,) = feed(reader.space, reader.filled, [frames.encode(frames.DATA, 1, 0, bytes(limit + 1))])
    assert over.body is None
    assert over.length == limit + 1


def test_a_length_of_four_gibibytes_costs_no_memory():
    reader = FrameReader()
    (frame,) = feed(reader.space, reader.filled, [b"\xff\xff\xff\xff\x00\x00\x00\x01\x01\x00"])
    assert frame.length == 2**32 - 1
    assert reader.mid_frame
    assert len(reader.space()) <= 1 << 16


@pytest.mark.parametrize("count", [1, 9, 10, 11, 100_000])
def test_a_frame_that_has_begun_is_known(count):
    reader = FrameReader()
    feed(reader.space, reader.filled, [frames.encode(frames.DATA, 1, 0, bytes(200_000))[:count]])
    assert reader.mid_frame


def test_a_long_body_is_received_in_place():
    reader = FrameReader()
    feed(reader.space, reader.filled, [struct.pack(">IIBB", 1 << 20, 1, frames.DATA, 0)])
    assert len(reader.space()) == 1 << 20


def test_frames_read_well_in_logs():
    assert str(Frame(3, frames.REQUEST, 0, b"", 120)) == "stream 3 request, 120 bytes"
    assert str(Frame(5, frames.DATA, frames.REMOTE_CLOSED, None, 0)) == "stream 5 data flags 0x01, 0 bytes"
    assert str(Frame(7, 0x7F, 0, b"", 0)) == "stream 7 type 0x7f, 0 bytes"
