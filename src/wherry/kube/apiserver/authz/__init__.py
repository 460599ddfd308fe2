"""May they: authorization.

``authorizer`` asks the sources in turn: ``node`` (kubelets, by a ``graph`` of what pods need),
``rbac`` (roles and bindings, their rules are ``rules``), ``webhook``, ``abac`` and the trivial
``modes``; ``options`` makes it of what a server is told. ``escalation`` says who may grant what,
``reviews`` answers the reviews of authorization.k8s.io. ``defaults`` holds the roles that every
cluster has.
"""

from wherry.kube.apiserver.authz.authorizer import Authorizer, refusal
from wherry.kube.apiserver.authz.decision import Decision
from wherry.kube.apiserver.authz.options import AuthorizationOptions

__all__ = ["AuthorizationOptions", "Authorizer", "Decision", "refusal"]
