"""``wherry registry``: a registry of one's own, and freeing what it no longer needs."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from wherry.cli.words import fail


def add(commands: Any, place: argparse.ArgumentParser) -> None:
    """Add the command to the others; ``place`` has ``--data-dir``."""
    parser = commands.add_parser("registry", help="serve images to others (OCI distribution 1.1)")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    root = argparse.ArgumentParser(add_help=False, parents=[place])
    root.add_argument("--root", type=Path, help="where the images lie (DATA_DIR/registry)")

    serve = actions.add_parser("serve", parents=[root], help="run the registry (foreground)")
    serve.add_argument(
        "--listen", default="127.0.0.1:5000", metavar="HOST:PORT", help="(%(default)s)"
    )
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    serve.add_argument(
        "--htpasswd", type=Path, metavar="FILE", help="users with bcrypt passwords (htpasswd -B)"
    )
    serve.add_argument(
        "--auth",
        choices=("basic", "token"),
        default="basic",
        help="how users of --htpasswd show who they are, by password or by token (%(default)s)",
    )
    serve.add_argument(
        "--anonymous-pull", action="store_true", help="with tokens: let everybody pull"
    )
    serve.add_argument("--token-realm", metavar="URL", help="where somebody else issues tokens")
    serve.add_argument(
        "--token-service", default="wherry", help="what tokens are for (%(default)s)"
    )
    serve.add_argument("--token-issuer", help="who issues them")
    serve.add_argument(
        "--token-keys", type=Path, metavar="FILE", help="certificates or public keys, PEM"
    )
    serve.set_defaults(run=_serve)

    collect = actions.add_parser(
        "garbage-collect", parents=[root], help="remove blobs that no manifest needs"
    )
    collect.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    collect.add_argument(
        "--delete-untagged", action="store_true", help="also manifests that nothing leads to"
    )
    collect.add_argument(
        "--grace",
        type=float,
        default=3600.0,
        help="seconds that a blob is kept after somebody asked for it (%(default)g)",
    )
    collect.set_defaults(run=_collect)


def _root(options: argparse.Namespace) -> Path:
    return Path(options.root or options.data_dir / "registry").absolute()


def _serve(options: argparse.Namespace) -> int:
    from wherry.registry import service

    host, _, port = options.listen.rpartition(":")
    if not port.isdigit():
        return fail(f"--listen {options.listen} is not HOST:PORT")
    settings = service.Settings(
        root=_root(options),
        host=host.strip("[]"),
        port=int(port),
        certificate=options.tls_cert,
        key=options.tls_key,
        htpasswd=options.htpasswd,
        by_token=options.auth == "token",
        anonymous_pull=options.anonymous_pull,
        token_realm=options.token_realm or "",
        token_service=options.token_service,
        token_issuer=options.token_issuer or "",
        token_keys=options.token_keys,
    )
    try:
        asyncio.run(service.serve(settings, lambda address: print(address, flush=True)))
    except (OSError, ValueError) as error:
        return fail(str(error))
    return 0


def _collect(options: argparse.Namespace) -> int:
    from wherry.registry.collector import collect
    from wherry.registry.storage import Storage

    root = _root(options)
    if not root.is_dir():
        return fail(f"no registry lives in {root}")
    storage = Storage(root)
    storage.open()
    result = collect(
        storage,
        grace=options.grace,
        delete_untagged=options.delete_untagged,
        dry_run=options.dry_run,
    )
    for name in (*result.manifests, *result.blobs):
        print(name)
    verb = "would free" if options.dry_run else "freed"
    count = len(result.manifests) + len(result.blobs)
    print(f"{verb} {result.size / 1e6:.1f} MB, {count} objects")
    return 0
