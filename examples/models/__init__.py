"""One module for each demo model: how to build its directory, and how to make its inputs."""
