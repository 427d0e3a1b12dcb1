"""Reading: windows of scenes from local files and over HTTP."""
