"""Windrow, a distributed SQL engine: a cluster in one line, SQL over files and frames, Arrow at every border.

>>> import windrow
>>> windrow.sql("SELECT value AS n, value * value AS square FROM generate_series(1, 3)").to_pydict()
{'n': [1, 2, 3], 'square': [1, 4, 9]}
"""

from windrow._adaptive import Adaptive
from windrow._client import (
    Client,
    compute,
    connect,
    default_client,
    frame,
    from_arrow,
    from_dict,
    from_pandas,
    from_polars,
    get_client,
    read_csv,
    read_json,
    read_parquet,
    register,
    sql,
    table,
    visualize,
)
from windrow._cluster import LocalCluster
from windrow._drawing import Drawing
from windrow._errors import (
    CancelledError,
    DataError,
    DeniedError,
    Error,
    InternalError,
    InvalidConfigError,
    InvalidQueryError,
    NotFoundError,
    Position,
    ResourcesExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from windrow._expr import Expr, Rolling, coalesce, col, concat_str, left, lit, right, struct, when
from windrow._frame import DataFrame, GroupBy
from windrow._progress import Progress
from windrow._query import Query
from windrow._table import Table
from windrow._udf import Udf, udaf, udf
from windrow._windrow import __version__

__all__ = [
    "Adaptive",
    "CancelledError",
    "Client",
    "DataError",
    "DataFrame",
    "DeniedError",
    "Drawing",
    "Error",
    "Expr",
    "GroupBy",
    "InternalError",
    "InvalidConfigError",
    "InvalidQueryError",
    "LocalCluster",
    "NotFoundError",
    "Position",
    "Progress",
    "Query",
    "ResourcesExhaustedError",
    "Rolling",
    "Table",
    "Udf",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "coalesce",
    "col",
    "compute",
    "concat_str",
    "connect",
    "default_client",
    "frame",
    "from_arrow",
    "from_dict",
    "from_pandas",
    "from_polars",
    "get_client",
    "left",
    "lit",
    "read_csv",
    "read_json",
    "read_parquet",
    "register",
    "right",
    "sql",
    "struct",
    "table",
    "udaf",
    "udf",
    "visualize",
    "when",
]
