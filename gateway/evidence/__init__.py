"""Pure statistics: how sure one may be, at any moment, that one version is as good as another."""
