"""Variables of upstream's config maps that have no effect here, with what to set in their place."""

from __future__ import annotations

from collections.abc import Mapping

_INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"


def leftovers(provider: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Which variables are set and have no effect, or not the one that they seem to have; and what to do.

    Args:
        provider: The cloud's name on the command line.
        environ: The environment.
    """
    found = {}
    if environ.get("AA_KBC_PARAMS"):
        found["AA_KBC_PARAMS"] = (
            "has no effect: name the key broker in initdata (its aa.toml and cdh.toml), by INITDATA or the pod's "
            f"annotation {_INITDATA}"
        )
    if provider == "libvirt" and environ.get("LIBVIRT_IMAGE_ID"):
        found["LIBVIRT_IMAGE_ID"] = "has no effect: name the image's volume by LIBVIRT_VOL_NAME"
    plugin = "ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN"
    if environ.get(plugin, "").lower() in ("1", "true"):
        path = environ.get("CLOUD_PROVIDER_EXTERNAL_PLUGIN_PATH", "")
        found[plugin] = (
            f"has no effect, nor have CLOUD_PROVIDER_EXTERNAL_PLUGIN_PATH {path!r} and _HASH: there are no plug-ins in "
            "Go; a provider is a Python package with an entry point (docs/howto-provider.md)"
        )
    named = environ.get("CLOUD_PROVIDER", "")
    if named and named != provider:
        found["CLOUD_PROVIDER"] = (
            f"says {named!r}, and machines are made by {provider!r}, the command's first word; PeerPods bear "
            "the former, where a controller looks for their machines: make both the same"
        )
    return found
