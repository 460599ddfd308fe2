"""The part of the configuration before the first server."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator

from wherry.kube.ingress.common import Common
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.text import on, quoted

SCHEME, PORT = "$pass_access_scheme", "$pass_server_port"
"""What a trusted proxy before us says was asked, else what was."""

_KEEPS_IDLE = 1, 27, 4
"""From this version on a reload need not close connections on which a request may be on its way."""

_LOG_BUFFER = select.PIPE_BUF
"""Lines are written together, but no more of them than a pipe takes in one piece."""

_MAIN = """\
# Written by Wherry's ingress controller: changes are lost.
user {user};
worker_processes {processes};
pid {directory}/nginx.pid;
error_log {error_log} notice;
events {{
    multi_accept on;
    worker_connections {connections};
}}
http {{
    geo $dollar {{ default "$"; }}
    types {{ }}
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    reset_timedout_connection on;
    absolute_redirect off;
    server_names_hash_bucket_size 512;
    server_names_hash_max_size 4096;
    map_hash_bucket_size 128;
    variables_hash_max_size 4096;
    client_body_temp_path {directory}/tmp/body;
    proxy_temp_path {directory}/tmp/proxy;
    fastcgi_temp_path {directory}/tmp/fastcgi;
    uwsgi_temp_path {directory}/tmp/uwsgi;
    scgi_temp_path {directory}/tmp/scgi;
    ssl_session_cache shared:SSL:10m;
    ssl_session_timeout 10m;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    map $http_x_request_id $req_id {{ default $http_x_request_id; '' $request_id; }}
    proxy_http_version 1.1;
    proxy_redirect off;
    proxy_set_header Host $asked_host;"""


def lines(settings: Settings, common: Common) -> Iterator[str]:
    """Up to where maps, upstreams and servers follow."""
    yield _MAIN.format(
        user=settings.user,
        processes=common.processes,
        directory=settings.directory,
        error_log=settings.error_log,
        connections=settings.connections,
    )
    yield f"    keepalive_timeout {common.keep_alive}s;"
    yield f"    keepalive_requests {common.keep_alive_requests};"
    yield f"    client_header_timeout {common.header_timeout}s;"
    yield f"    client_body_timeout {common.body_timeout}s;"
    yield f"    large_client_header_buffers {common.large_headers};"
    yield f"    underscores_in_headers {on(common.underscores)};"
    yield f"    server_tokens {on(common.server_tokens)};"
    yield f"    limit_req_status {common.refused_request};"
    yield f"    limit_conn_status {common.refused_connection};"
    yield f"    ssl_protocols {common.ssl_protocols};"
    yield f"    ssl_session_tickets {on(common.session_tickets)};"
    if common.ssl_ciphers:
        yield f"    ssl_ciphers {quoted(common.ssl_ciphers)};"
        yield "    ssl_prefer_server_ciphers on;"
    if common.strict_transport:
        header = quoted(common.strict_transport)
        yield f"    map $https $strict_transport {{ default ''; on {header}; }}"
    if common.gzip:
        yield "    gzip on;"
        yield f"    gzip_comp_level {common.gzip_level};"
        yield f"    gzip_min_length {common.gzip_least};"
        yield f"    gzip_types {common.gzip_types};"
        yield "    gzip_proxied any;"
        yield "    gzip_vary on;"
    yield from _asked(common)
    yield from _log(settings, common)
    if settings.resolver:
        yield f"    resolver {settings.resolver};"
    if settings.version >= _KEEPS_IDLE:
        yield "    keepalive_min_timeout 3s;"


def _asked(common: Common) -> Iterator[str]:
    """What was asked for, and by whom, where a proxy before us is trusted to say so."""
    if common.forwarded or common.real_ip:
        for range in common.trusted:
            yield f"    set_real_ip_from {range};"
        yield f"    real_ip_header {common.forwarded_header};"
        yield "    real_ip_recursive on;"
    # By these names users know it from ingress-nginx.
    yield '    map "" $the_real_ip { default $remote_addr; }'
    yield '    map "" $best_http_host { default $asked_host; }'
    if not common.forwarded:
        yield "    map $http_host $asked_host { default $http_host; '' $host; }"
        yield f'    map "" {SCHEME} {{ default $scheme; }}'
        yield f'    map "" {PORT} {{ default $server_port; }}'
        return
    told = "$http_x_forwarded_"
    yield "    map $http_host $own_host { default $http_host; '' $host; }"
    yield f"    map {told}host $asked_host {{ default {told}host; '' $own_host; }}"
    yield f"    map {told}proto {SCHEME} {{ default {told}proto; '' $scheme; }}"
    yield f"    map {told}port {PORT} {{ default {told}port; '' $server_port; }}"
    if common.forwarded_whole:
        header = variable(common.forwarded_header)
        whole = f'"{header}, $realip_remote_addr"'
        yield f"    map {header} $whole_way {{ default {whole}; '' $realip_remote_addr; }}"


def _log(settings: Settings, common: Common) -> Iterator[str]:
    if not common.access_log:
        yield "    access_log off;"
        return
    escape = "" if common.log_escape == "default" else f"escape={common.log_escape} "
    yield f"    log_format upstreaminfo {escape}{quoted(common.log_format)};"
    condition = ""
    if common.not_logged:
        condition = " if=$logged"
        skipped = " ".join(f"{quoted('~^' + re.escape(path))} 0;" for path in common.not_logged)
        yield f"    map $request_uri $logged {{ default 1; {skipped} }}"
    how = f"upstreaminfo buffer={_LOG_BUFFER} flush=1s{condition}"
    yield f"    access_log {settings.access_log} {how};"


def variable(header: str) -> str:
    """What nginx has of a request's header."""
    return "$http_" + header.lower().replace("-", "_")
