"""The one door from a kubelet to the containers, in the words of the Container Runtime Interface.

``types`` holds the messages and the ``ContainerRuntime`` protocol, and depends on nothing;
``service`` implements it on the engine. Names follow
https://github.com/kubernetes/cri-api (runtime/v1), as Python spells them.
"""
