"""A reader of TensorBoard's event files, written from the description of their format alone.

A file is a row of TFRecords, each a protocol buffer of the message Event.
"""

import struct


def crc32c(data):
    """Castagnoli's CRC, bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(blob):
    """TFRecord: length, its checksum, the data, its checksum."""
    at = 0
    while at < len(blob):
        (size, check) = struct.unpack_from("<QI", blob, at)
        assert check == masked(blob[at : at + 8])
        data = blob[at + 12 : at + 12 + size]
        assert len(data) == size
        assert struct.unpack_from("<I", blob, at + 12 + size) == (masked(data),)
        yield data
        at += 16 + size


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """Protocol buffer wire format: field number -> list of numbers or bytes."""
    found, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value, at = data[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def read_events(folder):
    """All events: (step, file version, {tag: value}, {tag: hparams content}), times apart."""
    events, times = [], []
    for path in sorted(folder.iterdir()):
        for event in map(fields, records(path.read_bytes())):
            times += struct.unpack("<d", event[1][0])
            values, plugin = {}, {}
            for value in map(fields, fields(event.get(5, [b""])[0]).get(1, [])):
                tag = value[1][0].decode()
                if 2 in value:
                    (values[tag],) = struct.unpack("<f", value[2][0])
                if 9 in value:
                    data = fields(fields(value[9][0])[1][0])
                    assert data[1] == [b"hparams"]
                    plugin[tag] = fields(data[2][0])
            events.append((event.get(2, [0])[0], event.get(3, [b""])[0], values, plugin))
    assert times == sorted(times)
    return events


def curves_of(events):
    got = {}
    for step, _, values, _ in events:
        for tag, value in values.items():
            got.setdefault(tag, {})[step] = value
    return got


def hparams(content):
    """The map of a SessionStartInfo: name -> number, text or bool."""
    found = {}
    for entry in map(fields, fields(content[3][0])[1]):
        ((kind, (value,)),) = fields(entry[2][0]).items()
        number = struct.unpack("<d", value)[0] if kind == 2 else value
        found[entry[1][0].decode()] = {2: number, 3: value, 4: value}[kind]
    return found
