"""What a pod's spec may say: shared by Pod and by everything with a pod template.

``defaults`` fills in, ``spec`` judges the whole, and the other modules judge one part each: they
add the faults they find, with their paths, to a list. Upstream: pkg/apis/core/v1/defaults.go and
pkg/apis/core/validation/validation.go.
"""
