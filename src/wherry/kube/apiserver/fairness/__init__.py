"""Priority and fairness: who asks too much waits behind the others, and is refused at last.

A request belongs to the first FlowSchema that matches it, which names its priority level. A level
has seats; a request that finds them taken waits in one of the level's queues, which its flow (its
user, or its namespace) shares with few others, and the queues take turns.

``matching`` finds the schema, ``levels`` has seats and queues, ``widths`` says how many seats a
request takes, and ``fairness`` follows the objects and answers the door. While nobody has to wait,
a request costs a look-up and two additions.

Not followed: levels do not lend each other seats. Nearly all work is done by one thread, so that
more requests of one level at once would serve none of them sooner, and the others later.
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from wherry.kube.apiserver.fairness.fairness import Fairness, Flow
from wherry.kube.apiserver.fairness.levels import Seats

__all__ = ["Fairness", "Flow", "Seats"]
