"""DVC: the home folder, commits of data versions, remotes and garbage collection."""
