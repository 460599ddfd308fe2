"""HorizontalPodAutoscalers: as many replicas as what is measured asks for.

``replicas``
    how many replicas a figure asks for; pure;
``behavior``
    what of that is done now: windows, policies, limits; pure;
``status``
    conditions and statuses; pure;
``sources``
    asks the metrics APIs;
``metrics``
    one metric of an autoscaler: what is asked, what follows;
``targets``
    finds the scale of whatever kind is meant;
``controller``
    looks at each autoscaler every 15 seconds, and when it was changed.

Upstream: pkg/controller/podautoscaler.
"""
