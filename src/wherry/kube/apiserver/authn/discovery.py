"""What others need to judge our tokens by themselves: who issues them, and the public keys.

OpenID Connect Discovery 1.0, as far as a token's verifier reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from wherry.kube.apiserver.answers import Document
from wherry.kube.apiserver.authn.keys import Keys

_CACHED = {"Cache-Control": "public, max-age=3600"}
CONFIGURATION = "/.well-known/openid-configuration"
KEY_SET = "/openid/v1/jwks"


def published(keys: Keys, issuer: str, jwks_uri: str) -> Mapping[str, Callable[[], Document]]:
    """The two documents, by path."""

    def configuration() -> Document:
        algorithms = dict.fromkeys(key.algorithms[0] for key in keys.believed)
        return Document(
            orjson.dumps(
                {
                    "issuer": issuer,
                    "jwks_uri": jwks_uri,
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": list(algorithms),
                }
            ),
            headers=dict(_CACHED),
        )

    def key_set() -> Document:
        data = orjson.dumps(keys.key_set())
        return Document(data, "application/jwk-set+json", headers=dict(_CACHED))

    return {CONFIGURATION: configuration, KEY_SET: key_set}
