"""MLflow: the client, runs and the Dagster resource."""
