"""Volumes of pods: directories below the kubelet's own, laid out as upstream's kubelet does.

``sources`` says what files a ConfigMap, Secret or downward API volume has (no I/O), ``atomic``
writes them so that a reader sees the old set or the new one, ``subpath`` reaches into a volume
without ever leaving it, ``mounts`` is what of it needs the kernel, ``manager`` puts it together.
"""
