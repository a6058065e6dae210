"""Many tasks of one kind, by workers that each hold something large: in this process, in several, or on a Ray cluster.

A task may run twice, when the worker that ran it is lost: what it writes must be whole or not at all, and the same each
time.

In reading order:

- ``pool``: what a pool of workers is, and the one in this process
- ``processes``: several processes of this machine
- ``ray_pool``: actors of a Ray cluster
"""

from mmms_deploy.cluster.pool import Lost, Open, Opened, Pool, here
from mmms_deploy.cluster.processes import Processes

__all__ = ["Lost", "Open", "Opened", "Pool", "Processes", "here"]
