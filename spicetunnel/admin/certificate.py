"""The names in an OpenSSH certificate, as far as they must be read to say whom it is for.

The format is PROTOCOL.certkeys of OpenSSH. sshd has read the whole, and found that its authority is
a trusted one, before it asks; and it takes no name that its own reading did not find there.
"""

from io import BytesIO

#: How many strings make up the public key, by the certificate's type.
_KEY_STRINGS = {
    b"ssh-rsa-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp384-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
    b"ssh-ed25519-cert-v01@openssh.com": 1,
    b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": 3,
    b"sk-ssh-ed25519-cert-v01@openssh.com": 2,
}
_USER = 1  # SSH_CERT_TYPE_USER
_MAX_PRINCIPALS = 256  # OpenSSH's own limit


def principals_of(certificate: bytes) -> list[str]:
    """The principals of a user's certificate; any text may be among them.

    Raises ValueError for bytes that are none.
    """
    data = BytesIO(certificate)
    key_strings = _KEY_STRINGS.get(_string(data))
    if key_strings is None:
        raise ValueError("not a certificate of a known type")
    for _ in range(1 + key_strings):  # the nonce, the key
        _string(data)
    _take(data, 8)  # the serial number
    if int.from_bytes(_take(data, 4)) != _USER:
        raise ValueError("not a user's certificate")
    _string(data)  # the key's id
    return _strings(_string(data))


def _strings(packed: bytes) -> list[str]:
    data, found = BytesIO(packed), list[str]()
    while data.tell() < len(packed):
        if len(found) == _MAX_PRINCIPALS:
            raise ValueError(f"a certificate with more than {_MAX_PRINCIPALS} principals")
        found.append(_string(data).decode("utf-8", "replace"))
    return found


def _string(data: BytesIO) -> bytes:
    return _take(data, int.from_bytes(_take(data, 4)))


def _take(data: BytesIO, size: int) -> bytes:
    taken = data.read(size)
    if len(taken) != size:
        raise ValueError("a certificate that ends too early")
    return taken
