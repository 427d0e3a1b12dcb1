#!/usr/bin/env bash
# Deletes the workspace of this folder, with everything that cannot be made again: `make clean CONFIRM=yes`. Without the word it only shows
# what would go.
set -euo pipefail
[ -e workspace ] || [ -L workspace ] || { echo "workspace: there is none, nothing to delete"; exit 0; }
if [ -L workspace ]; then
  echo "workspace: is a link to $(readlink workspace); delete the folder there yourself"; exit 1
fi
if [ -e workspace/logs/up.lock ] && ! flock -n workspace/logs/up.lock true; then
  echo "workspace: \`caco up\` runs in it; stop it first"; exit 1
fi
echo "workspace holds:"
what() {
  case $1 in
    mlflow) echo "all runs, registered models and their artifacts" ;;
    dvc) echo "every version of the data: DVC's cache and, unless versions.remote names another place, its remote" ;;
    dagster) echo "runs, events and schedules" ;;
    logs) echo "logs of the servers" ;;
    *) echo "profile $1: imagery, archive, pack, encoders, scores, report" ;;
  esac
}
for path in workspace/*; do
  [ -e "$path" ] || continue
  printf '  %6s  %-28s %s\n' "$(du -sh "$path" 2>/dev/null | cut -f1)" "$path" "$(what "$(basename "$path")")"
done
if [ "${1:-}" != yes ]; then
  echo "nothing was deleted. \`make clean CONFIRM=yes\` deletes all of it for good; \`caco gc\` deletes only what no registered version needs"
  exit 1
fi
# DVC write-protects its objects
chmod -R u+w workspace
rm -rf workspace
echo "deleted"
