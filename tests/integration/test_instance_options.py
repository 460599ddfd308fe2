"""kube-apiserver's options on an instance: kept, checked, and what they do."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Instance, eventually


def encryption(*keys: str) -> str:
    listed = [
        {"name": name, "secret": base64.b64encode(name.ljust(32).encode()).decode()}
        for name in keys
    ]
    document: dict[str, Any] = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [{"secretbox": {"keys": listed}}, {"identity": {}}],
            }
        ],
    }
    return json.dumps(document)


def test_an_instance_keeps_its_options_and_its_secrets(
    new_instance: Callable[[], Instance], tmp_path: Path
) -> None:
    instance = new_instance()
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    (tmp_path / "keys.yaml").write_text(encryption("k1"))
    audit = tmp_path / "audit.log"
    wrong = instance.wherry("up", "--apiserver-arg", "no-such-option=1", ok=False)
    assert wrong.code != 0 and "no-such-option" in wrong.err and "Traceback" not in wrong.err
    instance.wherry(
        "up",
        *("--apiserver-arg", f"audit-policy-file={tmp_path / 'policy.yaml'}"),
        *("--apiserver-arg", f"audit-log-path={audit}"),
        *("--apiserver-arg", f"encryption-provider-config={tmp_path / 'keys.yaml'}"),
    )
    instance.kubectl("create", "secret", "generic", "s", "--from-literal=p=hunter2")

    def users() -> set[str]:
        whole = audit.read_text().rpartition("\n")[0]  # somebody may be writing a line just now
        return {json.loads(line)["user"]["username"] for line in whole.splitlines()}

    eventually(lambda: "kubernetes-admin" in users())
    eventually(lambda: any(user.startswith("system:node:") for user in users()))
    busy = instance.wherry("up", "--apiserver-arg", "anonymous-auth=false", ok=False)
    assert "the server runs already, with other options" in busy.err

    instance.wherry("down")
    (tmp_path / "keys.yaml").write_text(encryption("k2", "k1"))
    instance.wherry("up")
    found = instance.kubectl("get", "secrets", "-A", "-o", "json").out
    instance.kubectl("replace", "-f", "-", stdin=found)
    backup = tmp_path / "backup"
    instance.wherry("backup", str(backup))
    content = backup.read_bytes()
    assert b"k8s:enc:secretbox:v1:k2:" in content and b"k8s:enc:secretbox:v1:k1:" not in content
    assert base64.b64encode(b"hunter2") not in content

    instance.kubectl("delete", "secret", "s")
    instance.wherry("down")
    instance.wherry("restore", str(backup))
    instance.wherry("up")
    secret = instance.get("secret", "s")
    assert base64.b64decode(secret["data"]["p"]) == b"hunter2"
    instance.wherry("down", "--purge")
