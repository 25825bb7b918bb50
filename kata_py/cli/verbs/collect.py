"""`kata-ctl collect`: one archive for a bug report."""

from __future__ import annotations

from pathlib import Path

import click

from kata_py.cli.errors import CtlError


@click.command(
    help="Write one archive with what a bug report needs of this node: versions, configuration, check, doctor, "
    "records, failures, timelines, figures, logs. Secrets are redacted as far as they are known or look like it; read "
    "it before you send it. What cannot be had is told in its index.json."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the archive; else kata-collect-HOST-TIME.tar.gz")
@click.option("--since", metavar="TIME", default="24 hours ago", show_default=True, help="as journalctl takes it")
@click.option("--config", type=click.Path(path_type=Path), help="the configuration; else the one that the shim takes")
def command(output: Path | None, since: str, config: Path | None) -> None:
    """Collect."""
    import platform
    import time

    from kata_py.diagnosis import archive, collection
    from kata_py.diagnosis.redaction import Redactor
    from kata_py.sandbox.paths import HostPaths

    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = output or Path(f"kata-collect-{platform.node()}-{moment}.tar.gz")
    paths = HostPaths()
    found = collection.containers(paths)
    try:
        entries = archive.write(
            path,
            collection.parts(config, paths, found, since=since),
            Redactor(collection.secrets_of(config, found)),
            collection.about(),
        )
    except FileExistsError as error:
        raise CtlError(f"{path} is there already", "name another with -o") from error
    except OSError as error:
        raise CtlError(f"{path} cannot be written: {error.strerror}", "name another place with -o") from error
    for each in entries:
        if each.state in ("failed", "left out"):
            click.echo(f"{each.state}: {each.file}: {each.cause}", err=True)
    there = sum(each.state == "there" for each in entries)
    click.echo(f"{path}: {there} files; read them before you send it")
