"""Ask for all that a pod's volumes are made from, and have them made.

ConfigMaps and Secrets are watched, tokens requested, claims followed to their volumes, images
pulled; then ``volumes`` makes directories and mounts of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.kubelet import pull_secrets
from wherry.kube.kubelet.environment import ConfigError, PodFacts
from wherry.kube.kubelet.images import ImageError
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.volumes import sources
from wherry.kube.kubelet.volumes.claims import ClaimError, claim_name
from wherry.kube.kubelet.volumes.manager import Inputs, Prepared, wanted_tokens

Object = dict[str, Any]


async def prepare(parts: Parts, pod: Object, facts: PodFacts) -> Prepared:
    """Make the pod's volumes, or bring them up to date; may be given up at any moment.

    Raises:
        ConnectionError: the API cannot be reached.
    """
    uid, namespace = meta.uid(pod), meta.namespace(pod)
    used = {(kind, namespace, name) for kind, name in sources.references(pod)}
    await parts.objects.use(uid, used)
    faults: list[str] = []
    tokens: dict[tuple[str, str], str | ConfigError | None] = {}
    for source in wanted_tokens(pod):
        try:
            tokens[_key(source)] = await parts.tokens.get(pod, source)
        except (StatusError, ConnectionError, TimeoutError) as error:
            account = pod["spec"].get("serviceAccountName") or "default"
            text = f"failed to fetch token for service account {namespace}/{account}: {error}"
            tokens[_key(source)] = ConfigError(text)
    persistent = await _persistent(parts, pod, faults)
    images = await _images(parts, pod, faults)
    prepared = await parts.volumes.prepare(
        pod,
        Inputs(
            facts,
            lambda kind, name: parts.objects.data(kind, namespace, name),
            lambda source: _token(tokens[_key(source)]),
            persistent,
            images,
        ),
    )
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("hostPath") and volume["name"] not in prepared.places:
            parts.awaited.path(uid, Path(volume["hostPath"]["path"]))
    return Prepared(prepared.places, _told(pod, prepared, faults))


def _token(found: str | ConfigError | None) -> str | None:
    if isinstance(found, ConfigError):
        raise found
    return found


def _key(source: Object) -> tuple[str, str]:
    return source.get("audience") or "", str(source.get("expirationSeconds") or "")


async def _persistent(parts: Parts, pod: Object, faults: list[str]) -> dict[str, Object]:
    """The volumes behind the pod's claims, by the names that the pod gives them."""
    found = {}
    begun = parts.volumes.pod_directory(meta.uid(pod)).exists()
    failed: dict[str, str] = {}
    for volume in pod["spec"].get("volumes") or ():
        if claim_name(pod, volume) is None:
            continue
        try:
            found[volume["name"]] = await parts.claims.volume_of(pod, volume, begun=begun)
        except ClaimError as error:
            failed[volume["name"]] = str(error)
    if failed:
        names, errors = " ".join(failed), "; ".join(failed.values())
        faults.append(f"failed to process volumes=[{names}]: {errors}")
    return found


async def _images(parts: Parts, pod: Object, faults: list[str]) -> dict[str, str]:
    """The ids of the images that are volumes, pulled as their policies say."""
    found = {}
    namespace = meta.namespace(pod)
    known, missing = pull_secrets.of_pod(
        pod, lambda name: parts.objects.data("Secret", namespace, name)
    )
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("image")
        if source is None:
            continue
        wanted = {"image": source.get("reference"), "imagePullPolicy": source.get("pullPolicy")}
        wanted["name"] = volume["name"]

        def tell(type_: str, reason: str, message: str) -> None:
            parts.tell(pod, type_, reason, message)

        try:
            present = await parts.images.ensure(pod, wanted, tell, known, missing)
            found[volume["name"]] = present.id
        except ImageError as error:
            parts.awaited.image(meta.uid(pod))
            faults.append(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}')
    return found


def _told(pod: Object, prepared: Prepared, faults: list[str]) -> list[str]:
    """The texts of events: claims that lead nowhere are told with all that is missing."""
    missing = [
        v["name"] for v in pod["spec"].get("volumes") or () if v["name"] not in prepared.places
    ]
    head = f"Unable to attach or mount volumes: unmounted volumes=[{' '.join(missing)}], "
    return [
        f"{head}unattached volumes=[], {f}" if f.startswith("failed to process") else f
        for f in faults
    ] + prepared.faults
