# Sourced by backup and restore. Their commands run in the compose containers, or with NATIVE=1 directly, with the variables of
# server.env set (PGHOST, PGUSER, PGPASSWORD, …).
compose="docker compose -f $(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/compose.yaml"
databases="dagster mlflow mlflow_auth"
if [ -n "${NATIVE:-}" ]; then
  inside=$folder
  [ -n "${PGPASSWORD:-}" ] || PGPASSWORD=$(cat "${PGPASSWORD_FILE:?}"); export PGPASSWORD
  in_postgres() { "$@"; }
  in_tools() { "$@"; }
else
  inside=/backup
  # inside its own container PostgreSQL requires no password
  in_postgres() { $compose exec -T -e PGUSER=caco postgres "$@"; }
  in_tools() { $compose run --rm -T --no-deps --volume "$folder:/backup" tools "$@"; }
fi
