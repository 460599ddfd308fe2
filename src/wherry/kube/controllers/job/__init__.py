"""Jobs: pods that run until enough of them have succeeded.

``indexes`` writes sets of completion indexes, ``pod`` makes pods and reads them, ``policies`` says
what a failed pod means and when enough have succeeded, ``plan`` decides the next step,
``controller`` carries it out.

No pod is counted twice or lost, however the controller dies: every pod has a finalizer, which is
taken away only when the status that counts the pod is stored.
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-tracking-with-finalizers)
"""
