"""Benchmarks behind the figures that README.md and docs/ give. Each measures its peer in the same run."""
