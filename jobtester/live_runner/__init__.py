"""Live runners: apps that orchestrators serve themselves, found and called without a gateway."""
