"""Server processes: `caco up`, the processes of a team server, database migrations, object backups."""
