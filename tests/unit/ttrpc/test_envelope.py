import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from kata_py.ttrpc import envelope
from kata_py.ttrpc.envelope import DecodeError, Request, Response


def messages():
    """Protobuf's own classes for the envelope, made from nothing but upstream's field numbers."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="envelope_under_test.proto", package="wire", syntax="proto3")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, field_name, kind, *rest in fields:
            label = field.LABEL_REPEATED if "repeated" in rest else field.LABEL_OPTIONAL
            types = [one for one in rest if one != "repeated"]
            made.field.add(
                name=field_name, number=number, type=kind, label=label, type_name=types[0] if types else None
            )

    message("Any", (1, "type_url", field.TYPE_STRING), (2, "value", field.TYPE_BYTES))
    message("KeyValue", (1, "key", field.TYPE_STRING), (2, "value", field.TYPE_STRING), (9, "new", field.TYPE_FIXED32))
    message(
        "Request",
        (1, "service", field.TYPE_STRING),
        (2, "method", field.TYPE_STRING),
        (3, "payload", field.TYPE_BYTES),
        (4, "timeout_nano", field.TYPE_INT64),
        (5, "metadata", field.TYPE_MESSAGE, ".wire.KeyValue", "repeated"),
        (77, "of_a_newer_version", field.TYPE_STRING),
        (78, "wide", field.TYPE_FIXED64),
        (79, "number", field.TYPE_UINT64),
    )
    message(
        "Status",
        (1, "code", field.TYPE_INT32),
        (2, "message", field.TYPE_STRING),
        (3, "details", field.TYPE_MESSAGE, ".wire.Any", "repeated"),
        (9, "narrow", field.TYPE_FIXED32),
    )
    message(
        "Response",
        (1, "status", field.TYPE_MESSAGE, ".wire.Status"),
        (2, "payload", field.TYPE_BYTES),
        (9, "number", field.TYPE_UINT64),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"wire.{name}"))
        for name in ("Request", "Response", "Any")
    ]


ProtoRequest, ProtoResponse, ProtoAny = messages()

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
int64 = st.integers(-(2**63), 2**63 - 1)
requests = st.builds(Request, text, text, st.binary(max_size=300), int64, st.lists(st.tuples(text, text)).map(tuple))
responses = st.builds(
    Response,
    st.binary(max_size=300),
    st.integers(-(2**31), 2**31 - 1),
    text,
    st.lists(st.builds(lambda value: ProtoAny(type_url="t", value=value).SerializeToString(), st.binary())).map(tuple),
)


def of_proto(message):
    pairs = tuple((pair.key, pair.value) for pair in message.metadata)
    return Request(message.service, message.method, message.payload, message.timeout_nano, pairs)


@given(requests)
def test_a_request_reads_for_protobuf_as_it_was_meant(request):
    assert of_proto(ProtoRequest.FromString(b"".join(envelope.encode_request(request)))) == request


@given(requests, text, st.integers(0, 2**64 - 1))
def test_a_request_of_protobuf_reads_here_as_it_was_meant_even_with_fields_not_known_here(request, new, number):
    message = ProtoRequest(
        service=request.service,
        method=request.method,
        payload=request.payload,
        timeout_nano=request.timeout_nano,
        metadata=[{"key": key, "value": value, "new": 7} for key, value in request.metadata],
        of_a_newer_version=new,
        wide=number,
        number=number,
    )
    assert envelope.decode_request(message.SerializeToString()) == request


@given(responses)
def test_a_response_reads_for_protobuf_as_it_was_meant(response):
    message = ProtoResponse.FromString(b"".join(envelope.encode_response(response)))
    details = tuple(detail.SerializeToString() for detail in message.status.details)
    assert Response(message.payload, message.status.code, message.status.message, details) == response
    assert message.HasField("status"), "the Rust client wants a status even when all is well"


@given(responses, st.integers(0, 2**64 - 1))
def test_a_response_of_protobuf_reads_here_as_it_was_meant(response, number):
    message = ProtoResponse(payload=response.payload, number=number)
    message.status.code = response.code
    message.status.message = response.message
    message.status.narrow = 7
    for detail in response.details:
        message.status.details.add().MergeFromString(detail)
    assert envelope.decode_response(message.SerializeToString()) == response


@given(st.binary(max_size=100))
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(data):
    try:
        request = envelope.decode_request(data)
    except DecodeError:
        return
    assert request == of_proto(ProtoRequest.FromString(data))


@given(st.binary(max_size=100))
def test_any_bytes_for_a_response_are_read_or_refused(data):
    try:
        response = envelope.decode_response(data)
    except DecodeError:
        return
    message = ProtoResponse.FromString(data)
    assert (response.payload, response.code, response.message) == (
        message.payload,
        message.status.code,
        message.status.message,
    )


@given(requests, st.data())
def test_a_request_cut_short_is_refused_or_reads_as_protobuf_reads_it(request, data):
    whole = b"".join(envelope.encode_request(request))
    part = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        got = envelope.decode_request(part)
    except DecodeError:
        return
    assert got == of_proto(ProtoRequest.FromString(part))


def test_an_absent_status_is_ok():
    assert envelope.decode_response(ProtoResponse(payload=b"x").SerializeToString()) == Response(b"x")


def test_a_status_in_two_parts_is_merged():
    parts = b"".join(b"".join(envelope.encode_response(part)) for part in (Response(b"", 5), Response(b"", 0, "gone")))
    assert envelope.decode_response(parts) == Response(b"", 5, "gone")


def test_a_number_where_a_key_should_be_is_skipped_as_protobuf_does():
    pair = b"\x08\x07" + b"\x12\x01v"
    assert envelope.decode_request(b"\x2a" + bytes([len(pair)]) + pair).metadata == (("", "v"),)


def test_a_request_of_no_bytes_is_an_empty_request():
    assert envelope.decode_request(b"") == Request("", "")


def test_a_large_payload_is_not_copied_on_its_way_out():
    payload = bytes(1 << 20)
    assert envelope.encode_request(Request("s", "m", payload))[1] is payload
    assert envelope.encode_response(Response(payload))[1] is payload


def test_a_message_with_a_file_name_that_is_no_utf_8_is_sent_readably():
    head, _, _ = envelope.encode_response(Response(b"", 2, "no such file: caf\udce9"))
    assert envelope.decode_response(head).message == "no such file: caf\\udce9"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\x05ab", "beyond the message"),
        (b"\x0a\x80", "within a number"),
        (b"\x20" + b"\xff" * 11, "more than ten bytes"),
        (b"\x0a\x01\xff", "not UTF-8"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x00", "field number 0"),
        (b"\xfd\x06\x00", "beyond the message"),  # 32 bits wide, one byte there
        (b"\xf9\x06\x00", "beyond the message"),  # 64 bits wide
    ],
)
def test_bytes_that_are_no_message_are_refused_with_the_reason(data, reason):
    with pytest.raises(DecodeError, match=reason):
        envelope.decode_request(data)


def test_metadata_folds_its_keys_to_lower_case_and_keeps_the_order_of_values():
    assert envelope.fold((("Key", "1"), ("other", "2"), ("KEY", "3"))) == {"key": ["1", "3"], "other": ["2"]}


def test_the_target_of_a_request_is_read_without_its_payload():
    request = Request("pkg.Service", "Method", b"\xff" * 100, 5, (("k", "v"),))
    data = b"".join(envelope.encode_request(request))
    assert envelope.decode_target(data) == ("pkg.Service", "Method")
    assert envelope.decode_target(b"\x0a\x01a\x0a\x01b") == ("b", "")
    assert envelope.decode_target(b"\x08\x01\x10\x02") == ("", "")
    with pytest.raises(DecodeError):
        envelope.decode_target(b"\x0b")


@pytest.mark.parametrize("part", [b"\x12\x00", b"\x0a\x02\x1a\x00", b"\x1a\x00", b"\x18\x00"])
def test_a_message_of_more_parts_than_any_has_is_refused_before_they_are_read(part: bytes) -> None:
    whole = part * envelope.FIELDS_MAX
    envelope.decode_response(whole)
    envelope.decode_target(whole)
    for decode in (envelope.decode_request, envelope.decode_response, envelope.decode_target):
        with pytest.raises(DecodeError, match="more than 256 fields"):
            decode(part * (4 << 20 >> 2))  # would take seconds, and for details of a status the square of that


def test_all_details_that_fit_are_kept_in_order() -> None:
    details = tuple(bytes([number % 256]) for number in range(envelope.FIELDS_MAX))
    encoded = b"".join(envelope.encode_response(Response(details=details)))
    assert envelope.decode_response(encoded).details == details
