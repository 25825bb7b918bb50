"""configuration.toml, its drop-ins and the pod's annotations, as frozen values."""
