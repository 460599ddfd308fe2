"""Which requests go to a canary: by header, then by cookie, then by weight."""

from __future__ import annotations

import re

from wherry.kube.ingress import affinity
from wherry.kube.ingress.model import Canary, Location
from wherry.kube.ingress.text import Above, name, quoted


def choose(location: Location, canary: Canary, stable: str, other: str, above: Above) -> str:
    """A variable that names one of two targets, request by request.

    Args:
        location: where the requests come in.
        canary: what is wished.
        stable: the target of all others; empty where nothing is behind it.
        other: the canary's, likewise.
        above: gets what is needed.
    """
    if not other:
        return stable
    options = canary.options
    id = name(location.ingress, location.path, stable, other, repr(options))
    lines: list[str] = []
    chosen = _by_weight(location, canary, id, lines, above)
    if options.canary_cookie:
        cookie = affinity.cookie_value(options.canary_cookie, above)
        lines.append(f"map {cookie} $canary_cookie_{id} {{ default {chosen}; always 1; never 0; }}")
        chosen = f"$canary_cookie_{id}"
    if options.canary_header:
        header = options.canary_header.lower().replace("-", "_")
        # (An expression: of texts nginx would not tell small letters from others.)
        if options.canary_header_value:
            found = quoted(f"~^{re.escape(options.canary_header_value)}$") + " 1;"
        elif options.canary_header_pattern:
            found = quoted(f"~{options.canary_header_pattern}") + " 1;"
        else:
            found = "always 1; never 0;"
        lines.append(f"map $http_{header} $canary_header_{id} {{ default {chosen}; {found} }}")
        chosen = f"$canary_header_{id}"
    nothing = '""'
    lines.append(f"map {chosen} $canary_{id} {{ default {stable or nothing}; 1 {other}; }}")
    above[f"canary {id}"] = lines
    return f"$canary_{id}"


def _by_weight(location: Location, canary: Canary, id: str, lines: list[str], above: Above) -> str:
    """1 for the canary's part. A client with a cookie stays where it was, unless declined."""
    options = canary.options
    share = min(100.0, 100.0 * options.canary_weight / max(1, options.canary_weight_total))
    key = "$request_id"
    stays = bool(location.options.affinity) and options.affinity_canary == "sticky"
    persistent = affinity.is_persistent(location.options)
    if stays and not persistent:
        key = affinity.key(location.options, above)
    chosen = f"$canary_weight_{id}"
    if share >= 100 or not share:
        lines.append(f"map '' {chosen} {{ default {int(share > 0)}; }}")
        return chosen
    # (nginx takes hundredths of a percent.)
    lines.append(f'split_clients "{key}" {chosen} {{ {max(share, 0.01):.2f}% 1; * 0; }}')
    if stays and persistent and location.upstream is not None:
        cookie = affinity.cookie_value(location.options.cookie_name, above)
        ids = [f"{affinity.endpoint_id(e)} 1;" for e in canary.upstream.endpoints]
        ids += [
            f"{affinity.endpoint_id(e)} 0;"
            for e in location.upstream.endpoints
            if e not in canary.upstream.endpoints
        ]
        lines.append(f"map {cookie} $canary_home_{id} {{ default {chosen}; {' '.join(ids)} }}")
        chosen = f"$canary_home_{id}"
    return chosen
