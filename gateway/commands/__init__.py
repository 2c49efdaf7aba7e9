"""The commands that change the traffic of models: a client of a running server's admin port."""
