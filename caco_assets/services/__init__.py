"""Servers: `caco up` with its supervisor and pages, the processes of a team server, database migrations, object backups."""
