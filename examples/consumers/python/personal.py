"""Opens the personal fields of events: each is a value, or ERASED.

The format is described in schemas/src/personal/mod.rs. As a program, it checks itself against the test
vectors that the Rust tests check, too:

    python personal.py ../../../schemas/tests/personal/vectors.json
"""

import hashlib
import hmac
import json
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ERASED = object()


class UnknownKey(Exception):
    """The key of a value is neither present nor known to be destroyed."""


class Forged(Exception):
    """A value was changed, or copied from another field or event."""


def _h(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def key_id(secret: bytes, subject: str) -> bytes:
    return _h(secret, b"annals personal 1 id" + subject.encode())[:16]


def _place(key: bytes, event_id: str, event_type: str, path: str) -> bytes:
    text = event_type.encode()
    return b"".join([
        b"annals personal 1", key, uuid.UUID(event_id).bytes,
        len(text).to_bytes(4, "big"), text, path.encode(),
    ])


def open_value(keys: dict, event_id: str, event_type: str, path: str, sealed: bytes):
    """The value of one field, or ERASED.

    `keys` has the secret of each key id, and None for a destroyed key. `event_id` and `event_type` are
    the record's headers ce_id and ce_type; `path` is the name of the field, with the index of an array
    or the key of a map behind a dot.
    """
    if sealed == b"\0":
        return ERASED
    if sealed[:1] != b"\1" or len(sealed) < 45:
        raise Forged(path)
    key = sealed[1:17]
    if key not in keys:
        raise UnknownKey(key.hex())
    if keys[key] is None:
        return ERASED
    cipher = AESGCM(_h(keys[key], b"annals personal 1 encryption"))
    try:
        plain = cipher.decrypt(sealed[17:29], sealed[29:], _place(key, event_id, event_type, path))
    except InvalidTag:
        raise Forged(path) from None
    return json.loads(plain)


def open_event(keys: dict, headers: dict, event: dict, fields: list) -> dict:
    """The event with the named fields opened. The other fields stay as they are."""
    def opened(path, value):
        if value is None:
            return None
        if isinstance(value, list):
            return [opened(f"{path}.{index}", item) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: opened(f"{path}.{name}", item) for name, item in value.items()}
        return open_value(keys, headers["ce_id"], headers["ce_type"], path, value)

    return {**event, **{field: opened(field, event[field]) for field in fields}}


def seal_value(secret: bytes, subject: str, event_id: str, event_type: str, path: str, value: bytes) -> bytes:
    """Seals a value as the store does; `value` is JSON. Consumers do not need it: the vectors do."""
    key = key_id(secret, subject)
    place = _place(key, event_id, event_type, path)
    nonce = _h(_h(secret, b"annals personal 1 nonce"), place + value)[:12]
    cipher = AESGCM(_h(secret, b"annals personal 1 encryption"))
    return b"\1" + key + nonce + cipher.encrypt(nonce, value, place)


def check(vectors: dict) -> int:
    """The number of vectors, all of which are sealed and opened as expected."""
    event = vectors["event"]
    for case in vectors["sealed"]:
        secret, sealed = bytes.fromhex(case["secret"]), bytes.fromhex(case["sealed"])
        key = key_id(secret, case["subject"])
        assert key.hex() == case["key_id"], case
        place = (event["id"], event["type"], case["path"])
        assert seal_value(secret, case["subject"], *place, case["value"].encode()) == sealed, case
        assert open_value({key: secret}, *place, sealed) == json.loads(case["value"]), case
        assert open_value({key: None}, *place, sealed) is ERASED, case
        fields = {case["path"]: sealed}
        headers = {"ce_id": event["id"], "ce_type": event["type"]}
        opened = open_event({key: secret}, headers, fields, [case["path"]])
        assert opened == {case["path"]: json.loads(case["value"])}, case
        wrong = [
            ({}, place, sealed, UnknownKey),
            ({key: secret}, (event["id"], event["type"], "other"), sealed, Forged),
            ({key: secret}, (event["id"], "Other", case["path"]), sealed, Forged),
            ({key: secret}, (str(uuid.UUID(int=1)), *place[1:]), sealed, Forged),
            ({key: secret}, place, sealed[:-1] + bytes([sealed[-1] ^ 1]), Forged),
        ]
        for keys, at, value, error in wrong:
            try:
                open_value(keys, *at, value)
            except error:
                continue
            raise AssertionError(f"{error.__name__} expected: {case}")
    return len(vectors["sealed"])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(check(json.load(file)), "vectors opened")
