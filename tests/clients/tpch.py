"""TPC-H: the texts that `windrow bench` runs too, and where its tables are declared."""

import pathlib

QUERIES = sorted((pathlib.Path(__file__).parents[2] / "cli/queries/tpch").glob("q*.sql"))
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# Makes every query run in stages of several partitions, small as the tables are.
CUT = ["SET windrow.query.partitions = 3", "SET windrow.query.small_input = '0B'"]


def declared(folder):
    """The statements that declare the tables in `folder`."""
    location = "CREATE EXTERNAL TABLE IF NOT EXISTS {0} STORED AS PARQUET LOCATION '{1}/{0}/'"
    return [location.format(table, folder) for table in TABLES]
