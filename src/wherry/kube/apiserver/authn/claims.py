"""From the claims of an issuer's token to a user of ours: what is asked of them, and what they
become. No I/O.

A value is a claim with a prefix, or (in an AuthenticationConfiguration) a CEL expression over
``claims``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wherry.kube.api import cel
from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.authn.ways import Refused
from wherry.kube.apiserver.request import User

Claims = Mapping[str, Any]
_CLAIMS, _USER = frozenset({"claims"}), frozenset({"user"})


@dataclass(frozen=True)
class Source:
    """Where a value comes from; neither claim nor expression: from nowhere."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""

    def __bool__(self) -> bool:
        return bool(self.claim or self.expression)

    @cached_property
    def program(self) -> cel.Program:
        """Raises cel.CompileError."""
        return cel.compile(self.expression, _CLAIMS)

    def of(self, claims: Claims) -> Any:
        """The value, without the prefix; None where the claim is not there. Raises Refused."""
        if self.expression:
            return evaluate(self.program, {"claims": claims}, self.expression)
        return claims.get(self.claim)


@dataclass(frozen=True)
class Check:
    """What must be true of claims or of the user; ``message`` is why it matters."""

    program: cel.Program
    expression: str
    message: str = ""

    def require(self, variables: Mapping[str, Any]) -> None:
        """Raises Refused."""
        if evaluate(self.program, variables, self.expression) is not True:
            why = self.message or f"expression '{self.expression}' evaluated to false"
            raise Refused(f"oidc: {why}")


@dataclass(frozen=True)
class ClaimMapping:
    """What a token of an issuer must say, and whom it makes."""

    username: Source
    groups: Source = Source()
    uid: Source = Source()
    extra: Sequence[tuple[str, Source]] = ()
    required: Sequence[tuple[str, str]] = ()
    claim_checks: Sequence[Check] = ()
    user_checks: Sequence[Check] = ()

    def user(self, claims: Claims) -> User:
        """Raises Refused."""
        name = self._username(claims)
        groups = self._groups(claims)
        for claim, wanted in self.required:
            value = claims.get(claim)
            if value is None:
                raise Refused(f"oidc: required claim {claim} not present in ID token")
            if value != wanted:
                raise Refused(f"oidc: required claim {claim} value does not match")
        for check in self.claim_checks:
            check.require({"claims": claims})
        uid = self.uid.of(claims) if self.uid else ""
        if not isinstance(uid, str):
            raise Refused("oidc: the uid is no string")
        extra = {key: values for key, source in self.extra if (values := _words(source, claims))}
        user = known(self.username.prefix + name, groups, uid, extra)
        if self.user_checks:
            shown = {
                "username": user.name,
                "uid": user.uid,
                "groups": list(groups),
                "extra": extra,
            }
            for check in self.user_checks:
                check.require({"user": shown})
        return user

    def _username(self, claims: Claims) -> str:
        name = self.username.of(claims)
        if not isinstance(name, str) or not name:
            what = self.username.claim or "username"
            raise Refused(f"oidc: parse username claims {what}: claim not present")
        if self.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise Refused("oidc: email not verified")
        return name

    def _groups(self, claims: Claims) -> list[str]:
        if not self.groups:
            return []
        return [self.groups.prefix + group for group in _words(self.groups, claims)]


def evaluate(program: cel.Program, variables: Mapping[str, Any], text: str) -> Any:
    """What an expression says. Raises Refused where it cannot be said."""
    try:
        return program.evaluate(variables)
    except cel.CELError as error:
        raise Refused(f"oidc: expression '{text}' resulted in error: {error}") from None


def claim_check(expression: str, message: str = "") -> Check:
    """Raises cel.CompileError."""
    return Check(cel.compile(expression, _CLAIMS), expression, message)


def user_check(expression: str, message: str = "") -> Check:
    """Raises cel.CompileError."""
    return Check(cel.compile(expression, _USER), expression, message)


def _words(source: Source, claims: Claims) -> list[str]:
    """The value as a list of strings; of one string it is that one. Raises Refused."""
    value = source.of(claims)
    if value is None or value == "":
        return []
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Refused(f"oidc: parse claim {source.claim or source.expression}: it is no string")
    return [word for word in words if word]
