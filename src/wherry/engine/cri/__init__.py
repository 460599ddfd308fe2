"""The one door from a kubelet to the containers, in the words of the Container Runtime Interface.

``types`` holds the messages and the ``ContainerRuntime`` protocol, and depends on nothing;
``service`` implements it on the engine, CRI's ImageService in ``images``. ``requests`` says what to
ask of the engine for what CRI asks, ``status`` what to answer, ``naming`` how containers of pods
are called; ``streams`` are those of exec and port-forward. Names follow
https://github.com/kubernetes/cri-api (runtime/v1), as Python spells them.
"""
