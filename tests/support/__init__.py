"""Cubes, networks, servers, clusters and strategies that several tests use."""
