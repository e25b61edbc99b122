"""config.toml, the environment and secret files: their schema, types and sources."""
