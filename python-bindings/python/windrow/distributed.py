"""The names of ``dask.distributed``, for code that comes from there: replace ``dask`` by ``windrow`` in the imports."""

from windrow._client import Client, get_client
from windrow._cluster import LocalCluster

__all__ = ["Client", "LocalCluster", "get_client"]
