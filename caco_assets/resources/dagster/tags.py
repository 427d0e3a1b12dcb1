"""Run tags that Dagster reads. Dagster has no public names for them; a test compares these with the installed version's."""

PARTITION_RANGE_START = "dagster/asset_partition_range_start"
PARTITION_RANGE_END = "dagster/asset_partition_range_end"
RETRY_STRATEGY = "dagster/retry_strategy"
RUN_KEY = "dagster/run_key"
GRPC_INFO = ".dagster/grpc_info"
MAX_RETRIES = "dagster/max_retries"
"""How often Dagster launches a failed run again; without the tag, as `dagster.yaml` says."""
