"""The plugins, one module each. A plugin is a module here and a line in ``PLUGINS``; whether and in
which order it is asked says the profile (``config.DEFAULT_PLUGINS``)."""

from __future__ import annotations

from wherry.kube.scheduler.framework import Plugin
from wherry.kube.scheduler.plugins.default_binder import DefaultBinder
from wherry.kube.scheduler.plugins.default_preemption import DefaultPreemption
from wherry.kube.scheduler.plugins.image_locality import ImageLocality
from wherry.kube.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from wherry.kube.scheduler.plugins.node_affinity import NodeAffinity
from wherry.kube.scheduler.plugins.node_name import NodeName
from wherry.kube.scheduler.plugins.node_ports import NodePorts
from wherry.kube.scheduler.plugins.node_resources_balanced import NodeResourcesBalancedAllocation
from wherry.kube.scheduler.plugins.node_resources_fit import NodeResourcesFit
from wherry.kube.scheduler.plugins.node_unschedulable import NodeUnschedulable
from wherry.kube.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from wherry.kube.scheduler.plugins.pod_topology_spread import PodTopologySpread
from wherry.kube.scheduler.plugins.priority_sort import PrioritySort
from wherry.kube.scheduler.plugins.scheduling_gates import SchedulingGates
from wherry.kube.scheduler.plugins.taint_toleration import TaintToleration
from wherry.kube.scheduler.plugins.volume_binding import VolumeBinding
from wherry.kube.scheduler.plugins.volume_restrictions import VolumeRestrictions
from wherry.kube.scheduler.plugins.volume_zone import VolumeZone

PLUGINS: tuple[type[Plugin], ...] = (
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
)
