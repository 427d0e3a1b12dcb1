"""What people and machines can see of work under way: logs with fields, and figures for Prometheus. Known to every room."""
