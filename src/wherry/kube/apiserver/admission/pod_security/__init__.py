"""PodSecurity: pods keep to the Pod Security Standard that their namespace's labels ask for.

``words`` is what the checks share, ``baseline`` and ``restricted`` hold them, ``checks`` lists
them; ``policy`` reads the labels, ``plugin`` asks at the writes they are about.
https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""
