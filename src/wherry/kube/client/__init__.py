"""How a component reaches the cluster: requests, watches, informers, queues, events, elections."""
