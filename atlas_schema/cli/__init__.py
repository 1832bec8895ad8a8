"""The command lines. They read files, call the core, print, and choose the exit code."""
