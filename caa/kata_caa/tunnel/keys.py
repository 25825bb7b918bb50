"""Keys for encrypted tunnels: one of the node, kept on disk, and two for each pod, which its `apf.json` holds.

So a pod's record is all that the next adaptor needs, beside that one file. The pod's preshared key is what makes the
node's own, should somebody have it, of no use with another pod's tunnel.
"""

from __future__ import annotations

import base64
import secrets
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kata_caa import privatefile
from kata_caa.apf import Encryption
from kata_caa.errors import TunnelError
from kata_caa.tunnel import encryption
from kata_caa.tunnel.encryption import End
from kata_py.netlink.wireguard import KEY_SIZE


class NodeKey:
    """The node's key. Its methods read and write a small file, and block for a moment.

    Args:
        path: The file, in the form of wg(8); made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def issue(self, port: int, node_port: int) -> Encryption:
        """Keys for a new pod VM.

        Args:
            port: The pod VM's UDP port.
            node_port: The node's; 0 leaves it open.

        Raises:
            TunnelError: The node's key cannot be read or written.
        """
        return Encryption(
            private_key=X25519PrivateKey.generate().private_bytes_raw(),
            node_key=_public(self._load()),
            preshared_key=secrets.token_bytes(KEY_SIZE),
            port=port,
            node_port=node_port,
        )

    def end(self, issued: Encryption, remote: IPv4Address | IPv6Address) -> End:
        """The node's end of a pod's tunnel.

        Args:
            issued: What the pod VM was given.
            remote: Its address.

        Raises:
            TunnelError: The node's key cannot be read, or is not the one that the pod VM knows.
        """
        own = self._load()
        if _public(own) != issued.node_key:
            raise TunnelError(f"{self._path} is not the key that the pod VM was given: start the pod anew")
        return encryption.node_end(issued, own, _public(issued.private_key), remote)

    def _load(self) -> bytes:
        try:
            if not self._path.exists():
                self._make()
            key = base64.b64decode(privatefile.read(self._path), validate=False)
            if len(key) != KEY_SIZE:
                raise ValueError(f"it holds no key of {KEY_SIZE} bytes in base64")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise TunnelError(
                f"{self._path} cannot be used: {reason}; put the right file back, or remove it: a new one is made, and "
                "pods that are not up yet must be started anew"
            ) from error
        return key

    def _make(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode() + "\n"
        try:
            privatefile.create(self._path, text)
        except FileExistsError:
            return  # by another adaptor, just now


def _public(private_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
