"""The disc that a machine reads its user data from: cloud-init's data source NoCloud.

Source: cloud-init, "NoCloud"; ECMA-119. Long lower-case names need the Rock Ridge or the Joliet extension: both are
there.
"""

from __future__ import annotations

import io

VOLUME_ID = "cidata"


def disc(user_data: str, hostname: str) -> bytes:
    """An ISO 9660 image with `user-data`, `meta-data` and an empty `vendor-data`.

    Args:
        user_data: A cloud-config; it may hold secrets.
        hostname: The machine's own name, its `local-hostname`; what the rest of meta-data is, is the image's choice.
    """
    from pycdlib import PyCdlib  # dear to import, and of use for one moment

    files = {
        "user-data": user_data.encode(),
        "meta-data": f"instance-id: {hostname}\nlocal-hostname: {hostname}\n".encode(),
        "vendor-data": b"",
    }
    image = PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID)
    for name, content in files.items():
        plain = name.upper().replace("-", "_")
        image.add_fp(io.BytesIO(content), len(content), f"/{plain}.;1", rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()
