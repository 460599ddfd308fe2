"""Images: what they are called, what they consist of, how they come in and go out.

The words to know:

- a *reference* (``reference``) is a name as users write it, normalised as Docker does;
- a *blob* is bytes under their SHA-256 digest: configs, manifests, layers as they were received;
- a *layer* is such a blob unpacked once into ``layers/<chain id>/diff``, in overlay's own form, and
  shared by all images and containers that have the same layers below it (``content``, ``unpack``);
- an *image* is a record that says which config, manifest and chain of layers belong together, and
  a tag points to it. Records and tags are one file (``catalog``): replacing it is what makes a
  change happen, whatever it does not mention is rubbish to be swept;
- ``store.ImageStore`` is the one door to all of it. Everything it lets in is checked against its
  digests, and what it unpacks cannot reach beyond its own directory (``beneath``).

``engine.api.images`` is the HTTP side, ``engine.container`` takes layers from here.
"""
