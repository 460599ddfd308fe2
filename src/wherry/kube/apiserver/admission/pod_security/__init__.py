"""PodSecurity: pods keep to the Pod Security Standard that their namespace's labels ask for.

``words`` is what the checks share, ``baseline`` and ``restricted`` hold them, ``policy`` lists them
and reads the labels, ``plugin`` asks them at the writes they are about.
https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""
