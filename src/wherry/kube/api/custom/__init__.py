"""Custom resources: kinds made from definitions at run time.

``structural`` prunes, defaults and validates by a structural schema, ``rules`` runs its CEL rules,
``paths`` reads JSONPaths, `kind` puts them together as a `Kind` like any other, ``definition``
makes such kinds of a CustomResourceDefinition and ``checks`` says what is wrong with one (with
``schema_checks`` and ``rule_checks``). Pure functions and values;
`wherry.kube.apiserver.extensions` has them served.
"""
