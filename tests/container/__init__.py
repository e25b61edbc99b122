"""Tests of the image and of docker-compose.yml, on a real engine."""
