"""Past one machine: one edge that speaks HTTP, and replicas on a Ray cluster that compute.

The edge, a replica, the messages between them and the settings do not know Ray; the other modules do.
"""
