"""How nodes join: tokens, who is let in and who is not, certificates that are renewed in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from conftest import eventually
from machines import NodeInstance, join
from node_pair import Pair, kept, node_pair


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with node_pair() as made:
        yield made


# ---- tokens


def test_tokens_are_made_shown_and_deleted(pair: Pair) -> None:
    token = "own001.0123456789abcdef"
    server = pair.server
    made = ("--ttl", "0", "--description", "for tests", "--groups", "system:bootstrappers:mine")
    assert server.wherry("token create", token, *made).out == f"{token}\n"
    heading, *rows = server.wherry("token list").out.splitlines()
    assert heading.split("  ")[0] == "TOKEN"
    row = next(row for row in rows if row.startswith(token))
    for cell in ("<forever>", "<never>", "authentication,signing", "for tests", made[-1]):
        assert cell in row
    again = server.wherry("token create", token, ok=False)
    assert again.code == 1 and 'a token with id "own001" already exists' in again.err
    assert server.wherry("token delete", "own001").out == 'bootstrap token "own001" deleted\n'
    assert token not in server.wherry("token list").out
    for wrong in (["short"], ["--ttl", "soon"], ["--usages", "all"], ["--groups", "admins"]):
        done = server.wherry("token create", *wrong, ok=False)
        assert done.code == 1 and done.err.startswith("wherry: "), wrong


def test_tokens_are_made_side_by_side_and_lists_may_be_lists(pair: Pair) -> None:
    groups = "system:bootstrappers:one,system:bootstrappers:two"
    told = ("--groups", groups, "--groups", "system:bootstrappers:three", "--usages", "signing")
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: pair.server.wherry("token create", *told).out, range(3)))
    tokens = {line.strip() for line in made}
    assert len(tokens) == 3
    rows = pair.server.wherry("token list").out.splitlines()
    for token in tokens:
        row = next(row for row in rows if row.startswith(token))
        assert f"{groups},system:bootstrappers:three" in row and "authentication" not in row
    said = pair.server.wherry("token delete", *tokens).out
    assert said.count("deleted") == 3
    gone = pair.server.wherry("token delete", tokens.pop(), ok=False)
    assert gone.code == 1 and "there is no bootstrap token" in gone.err


def test_a_secret_that_is_no_token_does_not_hide_the_others(pair: Pair) -> None:
    token = pair.server.wherry("token create").out.strip()
    odd = (
        "--type=bootstrap.kubernetes.io/token",
        "--from-literal=token-id=zz",
        "-n",
        "kube-system",
    )
    pair.kubectl("create", "secret", "generic", "bootstrap-token-odd", *odd)
    try:
        listed = pair.server.wherry("token list")
        assert token in listed.out and "secret bootstrap-token-odd: " in listed.err
    finally:
        pair.kubectl("delete", "secret", "bootstrap-token-odd", "-n", "kube-system")
        pair.server.wherry("token delete", token)


def test_what_is_the_servers_is_not_done_on_a_node(pair: Pair) -> None:
    for command, said in (
        ("token create", "tokens are made where the cluster's server is"),
        ("token list", "tokens are made where the cluster's server is"),
        ("up --api-name other.example", "options of its server are given there"),
        ("up --advertise-address 198.18.0.2", "`wherry join --node-ip` changes it"),
        ("up --node-name other", "is the node b"),
        ("up --sample", "the sample is started where the cluster's server is"),
    ):
        done = pair.node.wherry(command, ok=False)
        assert done.code == 1 and said in done.err and "Traceback" not in done.err, command
    again = join(pair.node, pair.command(), ok=False)
    assert again.code == 1 and "runs as a node of https://198.18.0.1:" in again.err


# ---- who is not let in


def _command(pair: Pair, *arguments: str) -> list[str]:
    out = pair.server.wherry("token create", "--print-join-command", *arguments).out
    return out.split()


@pytest.fixture(scope="module")
def joining(pair: Pair) -> tuple[str, ...]:
    """The words of a command that would be let in."""
    words = tuple(_command(pair))
    eventually(lambda: _signed(pair, words[4]))
    return words


@pytest.fixture
def stranger(pair: Pair) -> NodeInstance:
    return pair.bench.instance("b", "stranger")


def _refused(pair: Pair, stranger: NodeInstance, words: list[str], name: str = "x") -> str:
    done = join(stranger, " ".join(words), "--node-name", name, ok=False)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert not stranger.data_dir.exists() or not any(stranger.data_dir.iterdir())
    return done.err


def _signed(pair: Pair, token: str) -> bool:
    """Whether cluster-info, which follows the tokens, has that one's signature."""
    info = pair.server.get("configmap", "cluster-info", "-n", "kube-public")
    return f"jws-kubeconfig-{token[:6]}" in info["data"]


def test_a_wrong_token_is_refused(
    pair: Pair, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    good = words[4]
    words[4] = "abcdef.0123456789abcdef"
    assert 'JWS signature in the cluster-info ConfigMap for token ID "abcdef"' in _refused(
        pair, stranger, words
    )
    words[4] = f"{good[:7]}0123456789abcdef"
    assert "failed to verify JWS signature" in _refused(pair, stranger, words)
    words[4] = "nonsense"
    assert 'the bootstrap token "nonsense" was not of the form' in _refused(pair, stranger, words)


def test_an_expired_token_is_removed_and_refused(pair: Pair, stranger: NodeInstance) -> None:
    words = _command(pair, "--ttl", "1s")
    token = words[4]
    eventually(lambda: token not in pair.server.wherry("token list").out)
    eventually(lambda: not _signed(pair, token))
    assert "could not find a JWS signature" in _refused(pair, stranger, words)


def test_a_deleted_token_is_refused(pair: Pair, stranger: NodeInstance) -> None:
    words = _command(pair)
    identity = words[4][:6]
    said = pair.server.wherry("token delete", words[4]).out
    assert said == f'bootstrap token "{identity}" deleted\n'
    eventually(lambda: not _signed(pair, words[4]))
    assert "could not find a JWS signature" in _refused(pair, stranger, words)


def test_another_authority_than_the_pinned_one_is_refused(
    pair: Pair, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    right = words[6]
    words[6] = "sha256:" + "0" * 64
    said = _refused(pair, stranger, words)
    assert f'none of the public keys "{right}" are pinned' in said
    said = _refused(pair, stranger, words[:5])
    assert "--discovery-token-ca-cert-hash is missing" in said


def test_the_name_of_a_node_that_is_ready_is_refused(
    pair: Pair, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    said = _refused(pair, stranger, words, name="b")
    assert 'a Node with name "b" and status "Ready" already exists' in said


def test_a_token_that_is_not_for_authentication_lets_nobody_in(
    pair: Pair, stranger: NodeInstance
) -> None:
    words = _command(pair, "--usages", "signing")
    assert "the API server does not accept the token" in _refused(pair, stranger, words)


def test_somebody_else_at_that_address_is_told_apart(
    pair: Pair, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    words[2] = "198.18.0.254:6443"
    assert "the API server cannot be reached" in _refused(pair, stranger, words)


# ---- certificates


def _renewed_in(node: NodeInstance, delta: timedelta, ends: timedelta) -> None:
    now = datetime.now(UTC)
    text = f"{(now + delta).isoformat()}\n{(now + ends).isoformat()}\n"
    (kept(node).pki / "renew-at").write_text(text)


def _papers(node: NodeInstance) -> list[bytes]:
    one = kept(node)
    return [
        path.read_bytes()
        for path in (one.kubeconfig, one.data_dir / "proxy.conf", one.pki / "kubelet.pem")
    ]


def test_certificates_are_renewed_before_their_end_and_pods_do_not_notice(pair: Pair) -> None:
    pair.run("steady")
    before = _papers(pair.node)
    _renewed_in(pair.node, timedelta(seconds=-1), timedelta(hours=1))
    os.kill(pair.node.pid("node"), signal.SIGKILL)
    assert "is Ready" in pair.node.wherry("up").out
    eventually(lambda: all(old != new for old, new in zip(before, _papers(pair.node), strict=True)))
    eventually(lambda: "said" in pair.kubectl("logs", "steady", ok=False).out)
    assert pair.kubectl("exec", "steady", "--", "hostname").out == "steady\n"
    assert pair.restarts("steady") == 0 and pair.ready()
    rows = [line.split() for line in pair.kubectl("get", "csr", "--no-headers").out.splitlines()]
    own = [row for row in rows if row[3] == "system:node:b" and "client-kubelet" in row[2]]
    assert own and {row[-1] for row in own} == {"Approved,Issued"}
    pair.remove("pod/steady")


def test_who_slept_through_the_end_of_his_certificates_joins_again(pair: Pair) -> None:
    pair.run("sleeper")
    pair.node.wherry("down", "--grace", "0")
    _renewed_in(pair.node, timedelta(hours=-2), timedelta(hours=-1))
    refused = pair.node.wherry("up", ok=False)
    assert refused.code == 1 and "the certificates of this node ended at" in refused.err
    # (The cluster has not noticed that it was away: the name is taken, but by itself.)
    join(pair.node, pair.command())
    eventually(pair.ready)
    pair.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=110s")
    pair.remove("pod/sleeper")


# ---- at once, and half way


def test_of_two_that_join_at_once_under_one_name_one_is_let_in(pair: Pair) -> None:
    words = (*pair.command().split()[2:], "--node-name", "same")
    nodes = [pair.bench.instance(name, f"same-{name}") for name in ("c", "d")]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda node: node.wherry("join", *words, ok=False), nodes))
    assert sorted(each.code for each in done) == [0, 1]
    told = next(each.err for each in done if each.code)
    assert 'a Node with name "same"' in told and "already exists in the cluster" in told
    assert [node.data_dir.exists() for node in nodes] == [each.code == 0 for each in done]
    winner = next(node for node in nodes if node.data_dir.exists())
    winner.wherry("down", "--purge", "--grace", "0")
    pair.kubectl("delete", "node", "same")


def test_a_join_that_is_killed_at_any_step_is_done_again(pair: Pair) -> None:
    node = pair.bench.instance("c")
    words = pair.command().split()[2:]
    argv = [*node.machine.prefix, sys.executable, "-m", "wherry", "join", *words]
    argv += ["--node-name", "c", "--data-dir", str(node.data_dir)]
    papers = ("pki/ca.crt", "kubelet.conf", "pki/kubelet.pem", "proxy.conf", "pki/renew-at")
    for sign in ("instance.json", "kubelet.conf", "pki/kubelet.pem"):
        joining = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while joining.poll() is None and not (node.data_dir / sign).exists():
            time.sleep(0.001)  # the file is to be met while it is young
        joining.kill()
        joining.wait(60)
        again = node.wherry("up", ok=False)
        assert "Traceback" not in again.err
        if again.code:  # (a daemon that was started by then may be half way up)
            assert "`wherry join` does" in again.err or "already running" in again.err, sign
        node.wherry("down", "--grace", "0")
        for path in papers:
            (node.data_dir / path).unlink(missing_ok=True)
    node.wherry("join", *words, "--node-name", "c")
    eventually(lambda: pair.ready("c"))
    node.wherry("down", "--purge", "--grace", "0")
    pair.kubectl("delete", "node", "c")
